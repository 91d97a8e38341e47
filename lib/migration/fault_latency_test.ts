import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { LatencyHistogram } from "./fault_latency.ts";

Deno.test("quantiles are those of what was added, a fifth at most above", () => {
  fc.assert(fc.property(
    fc.array(fc.double({ min: 0.001, max: 1e5, noNaN: true }), { minLength: 1, maxLength: 200 }),
    (times) => {
      const histogram = new LatencyHistogram();
      for (const time of times) histogram.add(time);
      const sorted = times.toSorted((a, b) => a - b);
      const { count, p50Ms, p99Ms } = histogram.latency;
      assertEquals(count, times.length);
      for (const [share, told] of [[0.5, p50Ms], [0.99, p99Ms]] as const) {
        const real = sorted[Math.ceil(share * times.length) - 1]!;
        assert(told >= real * 0.999 && told <= real * 1.2, `${told} for ${real}`);
      }
    },
  ));
});

Deno.test("of nothing there is no latency, and no time is too short or too long", () => {
  const histogram = new LatencyHistogram();
  assertEquals(histogram.latency, { count: 0, p50Ms: 0, p99Ms: 0 });
  for (const time of [0, 1e-9, 1e12]) histogram.add(time);
  assertEquals(histogram.latency.count, 3);
  assert(histogram.latency.p99Ms < Infinity);
});
