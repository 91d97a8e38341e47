import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { Bitmap } from "./bitmap.ts";

const LENGTH = 200;

type Change = { kind: "add" | "delete" | "addRange" | "deleteRange"; from: number; to: number };

const changes: fc.Arbitrary<Change[]> = fc.array(
  fc.record({
    kind: fc.constantFrom<Change["kind"]>("add", "delete", "addRange", "deleteRange"),
    from: fc.nat(LENGTH - 1),
    to: fc.nat(LENGTH),
  }),
);

function apply(bitmap: Bitmap, model: boolean[], { kind, from, to }: Change): void {
  const member = kind === "add" || kind === "addRange";
  if (kind === "add" || kind === "delete") {
    bitmap[kind](from);
    model[from] = member;
  } else {
    bitmap[kind](from, to);
    for (let index = from; index < to; index++) model[index] = member;
  }
}

Deno.test("a bitmap has the members that an array of booleans has", () => {
  fc.assert(fc.property(changes, (list) => {
    const bitmap = new Bitmap(LENGTH);
    const model = new Array<boolean>(LENGTH).fill(false);
    for (const change of list) apply(bitmap, model, change);
    assertEquals(model.map((_, index) => bitmap.has(index)), model);
  }));
});

Deno.test("runs end where membership changes, or at the limit", () => {
  fc.assert(fc.property(changes, fc.nat(LENGTH - 1), fc.nat(LENGTH), (list, from, limit) => {
    const bitmap = new Bitmap(LENGTH);
    const model = new Array<boolean>(LENGTH).fill(false);
    for (const change of list) apply(bitmap, model, change);
    let end = from + 1;
    while (end < limit && model[end] === model[from]) end++;
    assertEquals(bitmap.runEnd(from, limit), Math.max(end, limit) === limit ? end : limit);
  }));
});

Deno.test("two bitmaps over one buffer are one set", () => {
  const left = new Bitmap(100);
  const right = new Bitmap(100, left.buffer);
  left.add(99);
  right.addRange(3, 40);
  assertEquals([right.has(99), left.has(3), left.has(39), left.has(40)], [true, true, true, false]);
  assertThrows(() => new Bitmap(200, left.buffer), RangeError);
});

Deno.test("the highest index of the largest bitmap is told apart", () => {
  const bitmap = new Bitmap(2 ** 31);
  bitmap.add(2 ** 31 - 1);
  assertEquals([bitmap.has(2 ** 31 - 1), bitmap.has(2 ** 31 - 2)], [true, false]);
  assertEquals(bitmap.runEnd(2 ** 31 - 100, 2 ** 31), 2 ** 31 - 1);
  assertThrows(() => new Bitmap(2 ** 31 + 1), RangeError);
});

Deno.test("members are counted, and the next one is found", () => {
  fc.assert(fc.property(changes, fc.nat(LENGTH), fc.nat(LENGTH), (list, from, limit) => {
    const bitmap = new Bitmap(LENGTH);
    const model = new Array<boolean>(LENGTH).fill(false);
    for (const change of list) apply(bitmap, model, change);
    assertEquals(bitmap.count(), model.filter((member) => member).length);
    const found = model.findIndex((member, index) => member && index >= from && index < limit);
    assertEquals(bitmap.next(from, limit), found < 0 ? limit : found);
  }));
});
