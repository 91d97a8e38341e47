/** When links are done: never too early, one thing after the other, and not during silences. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Cuts, Link } from "./link.ts";

const times = fc.double({ min: 0, max: 5000, noNaN: true });
const seeds = fc.nat();
const cutOptions = fc.tuple(fc.integer({ min: 2, max: 500 }), fc.nat(98)).map((
  [period, percent],
) => ({ period, silence: period * percent / 100 }));

/** Milliseconds between two moments in which nothing is silent, by looking at each fraction. */
function activeTime(cuts: Cuts, from: number, to: number): number {
  const steps = 5000, step = (to - from) / steps;
  let active = 0;
  for (let index = 0; index < steps; index++) {
    const at = from + (index + 0.5) * step;
    if (cuts.end(at, 0) === at) active += step;
  }
  return active;
}

Deno.test("something takes its time, less all silences", () => {
  const durations = fc.double({ min: 0, max: 300, noNaN: true });
  const property = fc.property(cutOptions, seeds, times, durations, (options, seed, start, d) => {
    const cuts = new Cuts(options, 0, seed);
    const end = cuts.end(start, d);
    // Sums over many periods are rounded.
    assert(end >= start + d - 1e-6);
    const silences = Math.ceil((end - start) / options.period) + 1;
    const tolerance = (silences + 1) * 2 * (end - start) / 5000 + 1e-6;
    const active = activeTime(cuts, start, end);
    assert(Math.abs(active - d) <= tolerance, `${active} ms of ${d} in ${end - start}`);
  });
  fc.assert(property, { numRuns: 200 });
});

Deno.test("a link is silent once in each period, at other moments with another seed", () => {
  const options = { silence: 30, period: 100 };
  const begins = [1, 2].map((seed) => {
    const cuts = new Cuts(options, 1000, seed);
    return Array.from({ length: 20 }, (_, index) => {
      const from = 1000 + index * 100;
      assert(Math.abs(activeTime(cuts, from, from + 100) - 70) < 0.1);
      let at = from;
      while (cuts.end(at, 0) === at) at++;
      assert(cuts.end(at, 0) <= from + 100);
      return at - from;
    });
  });
  for (const list of begins) assert(new Set(list).size > 10, `${list}`);
  assert(begins[0]!.some((at, index) => at !== begins[1]![index]));
});

Deno.test("what is sent leaves one after the other, at the rate", () => {
  const sent = fc.array(fc.tuple(fc.double({ min: 0, max: 20, noNaN: true }), fc.nat(100_000)), {
    minLength: 1,
  });
  fc.assert(fc.property(sent, cutOptions, fc.boolean(), seeds, (all, options, cut, seed) => {
    const cuts = cut ? new Cuts(options, 0, seed) : undefined;
    const link = new Link(1_000_000, cuts);
    let now = 10, left = 0, sum = 0;
    for (const [pause, bytes] of all) {
      now += pause;
      const end = link.carry(now, bytes);
      sum += bytes;
      assert(end >= now && end >= left, `${end} after ${now} and ${left}`);
      if (cuts !== undefined) assertEquals(cuts.end(end, 0), end, "It is not silent then");
      left = end;
    }
    const alone = new Link(1_000_000);
    const ends = all.map(([, bytes]) => alone.carry(10, bytes));
    const expected = 10 + sum / 1000 - 0.25;
    assert(Math.abs(ends.at(-1)! - Math.max(expected, 10)) < 1e-6);
  }));
});

Deno.test("a link that is late makes up for a quarter of a millisecond, and not for more", () => {
  const late = new Link(1_000_000);
  assertEquals(late.carry(100, 1000), 100.75);
  // It could have begun at 100.75, and was asked at 101.
  assertEquals(late.carry(101, 1000), 101.75);
  assertEquals(late.carry(200, 1000), 200.75);
});

Deno.test("a link without limits is no obstacle", () => {
  const link = new Link(Infinity);
  for (const now of [1, 2, 2, 3]) assertEquals(link.carry(now, 2 ** 30), now);
});

Deno.test("what is urgent has half of a link that is busy, and all of one that is not", () => {
  const link = new Link(1_000_000);
  // Ahead by what late timers may cost.
  const first = link.carry(0, 100_000);
  assertEquals(first, 99.75);
  assertEquals(link.carryUrgently(10, 5000), 20);
  assertEquals(link.carryUrgently(10, 5000), 30, "one after the other");
  assertEquals(link.carry(50, 100_000), first + 10 + 100, "all of it takes as long as before");
  assertEquals(link.carryUrgently(500, 5000), 505);
  assertEquals(link.carry(500, 1000), 506);
});
