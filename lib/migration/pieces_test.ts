import { assertEquals } from "@std/assert";
import { RangeList } from "../backend/range_list.ts";
import { MESSAGE_LIMIT } from "./messages.ts";
import { countPieces, pieceOf, rangesBehind } from "./pieces.ts";

const { PIECE } = MESSAGE_LIMIT;

Deno.test("there are as many pieces as are counted, and together they are the ranges", () => {
  const lengths = [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE];
  for (let bits = 0; bits < 2 ** lengths.length; bits++) {
    const ranges = new RangeList(), found = new RangeList();
    let at = 5;
    for (const length of lengths.filter((_, index) => (bits >> index & 1) === 1)) {
      ranges.add(at, at + length);
      at += length + 7;
    }
    const count = countPieces(ranges);
    for (let index = 0; index < count; index++) {
      const { offset, length } = pieceOf(ranges, index)!;
      found.add(offset, offset + length);
    }
    assertEquals(pieceOf(ranges, count), undefined);
    for (let first = 0; first <= count; first++) {
      const all = new RangeList();
      for (let index = 0; index < first; index++) {
        const { offset, length } = pieceOf(ranges, index)!;
        all.add(offset, offset + length);
      }
      for (const { offset, length } of rangesBehind(ranges, first)) {
        all.add(offset, offset + length);
      }
      assertEquals([...all], [...ranges]);
    }
    assertEquals([...found], [...ranges]);
  }
});

Deno.test("pieces cover ranges, each in one of them", () => {
  const ranges = RangeList.fromBounds(
    Float64Array.of(0, PIECE + 1, 5 * PIECE, 6 * PIECE),
  );
  assertEquals([0, 1, 2, 3].map((index) => pieceOf(ranges, index)), [
    { offset: 0, length: PIECE },
    { offset: PIECE, length: 1 },
    { offset: 5 * PIECE, length: PIECE },
    undefined,
  ]);
});
