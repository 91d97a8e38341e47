import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { Slabs } from "./slabs.ts";

openLibc();

const MIB = 1 << 20;

function takeAll(slabs: Slabs, count: number): Uint8Array<ArrayBuffer>[] {
  return Array.from({ length: count }, () => slabs.take());
}

/** How many slabs these lie in. */
function countSlabs(buffers: Uint8Array[]): number {
  return new Set(buffers.map(({ buffer }) => buffer)).size;
}

function byOffset(one: Uint8Array, other: Uint8Array): number {
  return one.byteOffset - other.byteOffset;
}

for (const bytes of [MIB, 960 << 10, 3 * MIB, 32 * MIB]) {
  Deno.test(`no byte belongs to two buffers of ${bytes} bytes`, () => {
    const slabs = new Slabs(bytes), most = Math.floor(32 * MIB / bytes);
    const buffers = takeAll(slabs, 2 * most);
    assertEquals(countSlabs(buffers), 2);
    const ends = new Map<ArrayBuffer, number>();
    for (const { buffer, byteOffset, length } of buffers.toSorted(byOffset)) {
      assertEquals(length, bytes);
      assert(byteOffset >= (ends.get(buffer) ?? 0));
      ends.set(buffer, byteOffset + length);
    }
  });
}

Deno.test("what is given back, also in part, is used again before more memory is taken", () => {
  const slabs = new Slabs(MIB);
  const [first, second] = takeAll(slabs, 32);
  slabs.give(second!.subarray(0, 5000));
  slabs.give(first!.subarray(5000));
  const again = takeAll(slabs, 2);
  assertEquals(countSlabs([first!, ...again]), 1);
  assertEquals(again.map(({ byteOffset, length }) => [byteOffset, length]), [
    [first!.byteOffset, MIB],
    [second!.byteOffset, MIB],
  ]);
});

for (const free of [15, 16]) {
  const becomes = free < 16 ? "is kept" : "is given to the kernel";
  Deno.test(`a slab that nobody uses ${becomes} where ${free} of 32 of another are free`, () => {
    const slabs = new Slabs(MIB);
    const buffers = takeAll(slabs, 64);
    const [one, other] = [buffers.slice(0, 32), buffers.slice(32)];
    for (const buffer of [...one.slice(0, free), ...other]) slabs.give(buffer);
    assertEquals([one[0]!.length, other[0]!.length], [MIB, free < 16 ? MIB : 0]);
    assertEquals(countSlabs(takeAll(slabs, free)), 1);
  });
}

Deno.test("the last slab is kept, however large its only buffer is", () => {
  const slabs = new Slabs(32 * MIB);
  const buffer = slabs.take();
  slabs.give(buffer);
  assertStrictEquals(slabs.take().buffer, buffer.buffer);
});
