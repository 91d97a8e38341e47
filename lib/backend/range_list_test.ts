import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { RangeList } from "./range_list.ts";

const LENGTH = 120;

type Bounds = [start: number, end: number];

const ranges: fc.Arbitrary<Bounds[]> = fc.array(
  fc.tuple(fc.nat(LENGTH), fc.nat(LENGTH)),
  { maxLength: 40 },
);

function listOf(bounds: Bounds[]): RangeList {
  const list = new RangeList();
  for (const [start, end] of bounds) list.add(start, end);
  return list;
}

/** Whether each byte is in one of the ranges, by the plainest means. */
function modelOf(bounds: Bounds[]): boolean[] {
  const model = new Array<boolean>(LENGTH).fill(false);
  for (const [start, end] of bounds) model.fill(true, start, Math.max(start, end));
  return model;
}

/** The bytes of a list, which must be ascending, apart from each other and not empty. */
function bytesOf(list: RangeList): boolean[] {
  const bytes = new Array<boolean>(LENGTH).fill(false);
  let before = -1;
  for (const { offset, length } of list) {
    assert(offset > before && length > 0, `${offset} follows ${before}`);
    bytes.fill(true, offset, offset + length);
    before = offset + length;
  }
  return bytes;
}

Deno.test("a range list has the bytes that were added, merged and ascending", () => {
  fc.assert(fc.property(ranges, (bounds) => {
    const list = listOf(bounds), model = modelOf(bounds);
    assertEquals(bytesOf(list), model);
    assertEquals(list.byteLength, model.filter(Boolean).length);
  }));
});

Deno.test("a range list has the bytes of another one too, once they are added", () => {
  fc.assert(fc.property(ranges, ranges, (some, others) => {
    const list = listOf(some);
    list.addAll(listOf(others));
    assertEquals(bytesOf(list), modelOf([...some, ...others]));
  }));
});

Deno.test("a range list is the same again from its bounds", () => {
  fc.assert(fc.property(ranges, (bounds) => {
    const list = listOf(bounds), again = RangeList.fromBounds(list.bounds());
    assertEquals([...again], [...list]);
    assertEquals(again.count, list.count);
  }));
});
