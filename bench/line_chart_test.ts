import { assertEquals, assertStringIncludes } from "@std/assert";
import { lineChart } from "./line_chart.ts";

const CHART = { title: "A < B & C", x: "ms", y: "MB/s" };

Deno.test("line chart: points lie where the axes say, from 0 to a round value", () => {
  const svg = lineChart({
    ...CHART,
    series: [{ name: "a", points: [[0, 0], [50, 400], [100, 800]] }],
  });
  // The frame goes from 72 to 696 across, and from 364 to 72 up: 0 to 100, and 0 to 800.
  assertStringIncludes(svg, `points="72,364 384,218 696,72"`);
  const ticks = [...svg.matchAll(/text-anchor="end">([^<]*)</g)].map(([, tick]) => tick);
  assertEquals(ticks, ["0", "200", "400", "600", "800"]);
});

Deno.test("line chart: text is escaped, and each series has its colour", () => {
  const series = ["a<b", "c"].map((name) => ({ name, points: [[0, 1], [1, 2]] as const }));
  const svg = lineChart({ ...CHART, series });
  assertStringIncludes(svg, "A &lt; B &amp; C");
  assertStringIncludes(svg, "a&lt;b");
  const colours = [...svg.matchAll(/<polyline[^>]*stroke="([^"]*)"/g)].map(([, colour]) => colour);
  assertEquals(new Set(colours).size, 2);
});

Deno.test("line chart: values that are all zero have an axis too", () => {
  const svg = lineChart({ ...CHART, series: [{ name: "a", points: [[0, 0]] }] });
  assertStringIncludes(svg, `points="72,364"`);
});
