import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { PartialChunks } from "./partial_chunks.ts";

const LENGTH = 40;
const ranges = fc.array(
  fc.tuple(fc.nat(LENGTH - 1), fc.nat(LENGTH)).map(([from, length]) => ({
    from: 100 + from,
    to: 100 + Math.min(from + length + 1, LENGTH),
  })),
  { maxLength: 8 },
);

Deno.test("gaps and coverage are those of an array of bytes", () => {
  fc.assert(fc.property(ranges, fc.nat(LENGTH - 1), fc.nat(LENGTH), (list, start, end) => {
    const partial = new PartialChunks();
    const model = new Array<boolean>(LENGTH).fill(false);
    for (const { from, to } of list) {
      partial.add(5, from, to);
      model.fill(true, from - 100, to - 100);
    }
    const found = new Array<boolean>(LENGTH).fill(true);
    for (const [from, to] of partial.gaps(5, 100, 100 + LENGTH)) {
      found.fill(false, from - 100, to - 100);
    }
    assertEquals(found, model);
    const last = Math.max(start + 1, end);
    const covered = model.slice(start, last).every((written) => written);
    assertEquals(partial.covers(5, 100 + start, 100 + last), covered);
  }));
});

Deno.test("ranges are counted, and forgotten with their chunk", () => {
  const partial = new PartialChunks();
  partial.add(1, 0, 10);
  partial.add(1, 20, 30);
  partial.add(2, 100, 110);
  assertEquals(partial.rangeCount, 3);
  partial.add(1, 10, 20);
  assertEquals(partial.rangeCount, 2);
  assertEquals([...partial.chunks()], [1, 2]);
  partial.delete(1);
  partial.delete(7);
  assertEquals(partial.rangeCount, 1);
  assertEquals(partial.has(1), false);
});
