import { assertEquals } from "@std/assert";
import { RangeList } from "../backend/range_list.ts";
import { MESSAGE_LIMIT } from "./messages.ts";
import { countPieces, pieceOf, rangesBehind } from "./pieces.ts";

const { PIECE } = MESSAGE_LIMIT;

Deno.test("there are as many pieces as are counted, and together they are the ranges", () => {
  const lengths = [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE];
  for (let bits = 0; bits < 2 ** lengths.length; bits++) {
    const ranges = new RangeList();
    let at = 5;
    for (const length of lengths.filter((_, index) => (bits >> index & 1) === 1)) {
      ranges.add(at, at + length);
      at += length + 7;
    }
    const count = countPieces(ranges);
    assertEquals(pieceOf(ranges, count), []);
    for (let first = 0; first <= count; first++) {
      const all = new RangeList();
      for (let index = 0; index < first; index++) {
        const parts = pieceOf(ranges, index);
        const length = parts.reduce((sum, part) => sum + part.length, 0);
        assertEquals(length, Math.min(PIECE, ranges.byteLength - index * PIECE));
        for (const part of parts) all.add(part.offset, part.offset + part.length);
      }
      for (const { offset, length } of rangesBehind(ranges, first)) {
        all.add(offset, offset + length);
      }
      assertEquals([...all], [...ranges]);
    }
  }
});

Deno.test("a piece has the content of ranges one after the other", () => {
  const ranges = RangeList.fromBounds(
    Float64Array.of(0, PIECE + 1, 5 * PIECE, 6 * PIECE, 7 * PIECE, 7 * PIECE + 3),
  );
  assertEquals([0, 1, 2, 3].map((index) => pieceOf(ranges, index)), [
    [{ offset: 0, length: PIECE }],
    [{ offset: PIECE, length: 1 }, { offset: 5 * PIECE, length: PIECE - 1 }],
    [{ offset: 6 * PIECE - 1, length: 1 }, { offset: 7 * PIECE, length: 3 }],
    [],
  ]);
  assertEquals(rangesBehind(ranges, 2), [
    { offset: 6 * PIECE - 1, length: 1 },
    { offset: 7 * PIECE, length: 3 },
  ]);
});
