import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { chartRoundTrips, describeRoundTrips, type RoundTrip } from "./round_trips.ts";

/** One round each: direct mounts that halve, managed ones as given. */
function trips(managedReads: number[], managedFirst: number): RoundTrip[] {
  return managedReads.map((read, index) => ({
    rtt: index * 10,
    direct: [{ first: 1, last: 1, read: 1000 / (index + 1), write: 100 }],
    managed: [{ first: managedFirst, last: 1, read }],
    writes: [{ far: read, near: 800 }],
  }));
}

Deno.test("round trips: tells which targets were met", () => {
  const [reads, writes, first] = describeRoundTrips(trips([800, 700], 4), "of a test");
  assertStringIncludes(
    reads!,
    "managed at 10 ms, its lowest, of itself at 0 ms: 0.88 (target 0.85: met)",
  );
  assertStringIncludes(reads!, "managed at 0 ms of direct: 0.80 (target 0.8: met)");
  assertStringIncludes(writes!, "0.88 (target 0.95: MISSED)");
  assertStringIncludes(first!, "4.00 ms at most, at 0 ms (target 5 ms: met)");
});

Deno.test("round trips: tells which targets were missed", () => {
  const [reads, , first] = describeRoundTrips(trips([700, 500], 6), "of a test");
  assertStringIncludes(reads!, "0.71 (target 0.85: MISSED)");
  assertStringIncludes(reads!, "0.70 (target 0.8: MISSED)");
  assertStringIncludes(first!, "6.00 ms at most, at 0 ms (target 5 ms: MISSED)");
});

Deno.test("round trips: ratios are taken round by round", () => {
  const run = (read: number) => ({ first: 1, last: 1, read, write: 1 });
  // The machine slows down; the medians alone would say 0.56.
  const direct = [run(100), run(50), run(80)], managed = [run(90), run(45), run(40)];
  const trip = { rtt: 0, direct, managed, writes: [{ far: 1, near: 1 }] };
  assertStringIncludes(describeRoundTrips([trip], "")[0]!, "of direct: 0.90");
});

Deno.test("round trips: writes are compared within each pair, and all pairs count", () => {
  // The machine is twice as fast in the middle pair; the medians alone would say 1.00.
  const writes = [{ far: 90, near: 100 }, { far: 180, near: 200 }, { far: 100, near: 80 }];
  const [trip] = trips([800], 4);
  const [, told] = describeRoundTrips([{ ...trip!, writes }], "");
  assertStringIncludes(told!, "0.90 (target 0.95: MISSED)");
});

Deno.test("round trips: a chart each of reads and writes", () => {
  const charts = chartRoundTrips(trips([800, 700], 4), "of a test");
  assertEquals([...charts.keys()], ["managed_read.svg", "managed_write.svg"]);
  for (const svg of charts.values()) assert(svg.startsWith("<svg "));
});
