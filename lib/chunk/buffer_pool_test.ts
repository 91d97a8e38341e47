import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { BufferPool } from "./buffer_pool.ts";

openLibc();

const KIB = 1 << 10;
const MIB = 1 << 20;

Deno.test("a buffer has the bytes that were asked for, and hardly more behind it", () => {
  const pool = new BufferPool(7 * 65_536);
  for (const length of [1, 2, 3, 4096, 65_535, 65_536, 65_537, 5 * 65_536, 458_752]) {
    const { byteLength, buffer } = pool.take(length);
    assertEquals(byteLength, length);
    assert(buffer.byteLength < 2 * length && buffer.byteLength <= 458_752, `${length}`);
  }
});

Deno.test("a buffer that was given back is used again, for as much or less", () => {
  const pool = new BufferPool(256 * KIB);
  const { buffer } = pool.take(256 * KIB);
  assert(pool.take(256 * KIB).buffer !== buffer);
  pool.give(new Uint8Array(buffer, 0, 150_000));
  assert(pool.take(4096).buffer !== buffer);
  assertStrictEquals(pool.take(175_000).buffer, buffer);
  assert(pool.take(175_000).buffer !== buffer);
});

/** How many of the buffers are handed out again. */
function countKept(pool: BufferPool, buffers: Uint8Array<ArrayBuffer>[]): number {
  const known = new Set(buffers.map(({ buffer }) => buffer));
  return buffers.filter(({ length }) => known.has(pool.take(length).buffer)).length;
}

Deno.test("32 MiB are kept, of what was used last", () => {
  const pool = new BufferPool(256 * KIB);
  const take = (count: number, length: number) =>
    Array.from({ length: count }, () => pool.take(length));
  const small = take(1000, 64 * KIB);
  for (const buffer of small) pool.give(buffer);
  assertEquals(countKept(pool, small), 512);
  const large = take(160, 256 * KIB);
  for (const buffer of [...small, ...large]) pool.give(buffer);
  assertEquals(countKept(pool, large), 128);
  assertEquals(countKept(pool, small), 0);
});

Deno.test("large buffers share a slab, in which small ones have no part", () => {
  const pool = new BufferPool(MIB);
  const [one, other, small] = [600_000, MIB, 512 * KIB].map((length) => pool.take(length));
  assertStrictEquals(one!.buffer, other!.buffer);
  assert(small!.buffer !== one!.buffer);
  pool.give(one!);
  pool.give(small!);
  assertEquals(pool.take(MIB).byteOffset, one!.byteOffset);
  assertStrictEquals(pool.take(512 * KIB).buffer, small!.buffer);
});
