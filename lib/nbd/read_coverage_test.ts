import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { ReadCoverage } from "./read_coverage.ts";

Deno.test("ReadCoverage takes parts in any order and knows when they are all", () => {
  const cuts = fc.uniqueArray(fc.integer({ min: 1, max: 99 }), { maxLength: 20 })
    .map((inner) => [0, ...inner.sort((a, b) => a - b), 100]);
  const parts = cuts.chain((bounds) => {
    const ranges = bounds.slice(1).map((end, index) => [bounds[index]!, end] as const);
    return fc.shuffledSubarray(ranges, { minLength: ranges.length });
  });
  fc.assert(fc.property(parts, (ranges) => {
    const coverage = new ReadCoverage();
    for (const [index, [start, end]] of ranges.entries()) {
      assertEquals(coverage.isComplete(100), false);
      assertEquals(coverage.add(start, end), true);
      for (const [from, to] of ranges.slice(0, index + 1)) {
        const probe = copyOf(ranges.slice(0, index + 1));
        assertEquals(probe.add(from, to), false);
      }
    }
    assertEquals(coverage.isComplete(100), true);
  }));
});

Deno.test("ReadCoverage refuses every overlap", () => {
  const range = fc.tuple(fc.nat(30), fc.integer({ min: 1, max: 5 })).map(([start, length]) =>
    [start, start + length] as const
  );
  fc.assert(fc.property(fc.array(range), (ranges) => {
    const coverage = new ReadCoverage();
    const bytes = new Set<number>();
    for (const [start, end] of ranges) {
      const wanted = Array.from({ length: end - start }, (_, index) => start + index);
      const isFree = wanted.every((byte) => !bytes.has(byte));
      assertEquals(coverage.add(start, end), isFree);
      if (!isFree) continue;
      for (const byte of wanted) bytes.add(byte);
    }
  }));
});

Deno.test("ReadCoverage bounds the gaps that are open", () => {
  const coverage = new ReadCoverage();
  let count = 0;
  while (count < 10_000 && coverage.add(2 * count + 1, 2 * count + 2)) count++;
  assertEquals(count, 256);
});

function copyOf(ranges: readonly (readonly [number, number])[]): ReadCoverage {
  const coverage = new ReadCoverage();
  for (const [start, end] of ranges) coverage.add(start, end);
  return coverage;
}
