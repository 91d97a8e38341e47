import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { BufferPool } from "./buffer_pool.ts";

const MIB = 1 << 20;

Deno.test("a buffer has the bytes that were asked for, and hardly more behind it", () => {
  const pool = new BufferPool(10 * 65_536);
  for (const length of [1, 2, 3, 4096, 65_535, 65_536, 65_537, 5 * 65_536, 9 * 65_536, 655_360]) {
    const { byteLength, buffer } = pool.take(length);
    assertEquals(byteLength, length);
    assert(buffer.byteLength < 2 * length && buffer.byteLength <= 655_360, `${length}`);
  }
});

Deno.test("a buffer that was given back is used again, for as much or less", () => {
  const pool = new BufferPool(MIB);
  const { buffer } = pool.take(MIB);
  assert(pool.take(MIB).buffer !== buffer);
  pool.give(new Uint8Array(buffer, 0, 600_000));
  assert(pool.take(4096).buffer !== buffer);
  assertStrictEquals(pool.take(700_000).buffer, buffer);
  assert(pool.take(700_000).buffer !== buffer);
});

/** How many of the buffers are handed out again. */
function countKept(pool: BufferPool, buffers: Uint8Array<ArrayBuffer>[]): number {
  const known = new Set(buffers.map(({ buffer }) => buffer));
  return buffers.filter(({ length }) => known.has(pool.take(length).buffer)).length;
}

Deno.test("32 MiB are kept, of what was used last", () => {
  const pool = new BufferPool(MIB);
  const take = (count: number, length: number) =>
    Array.from({ length: count }, () => pool.take(length));
  const small = take(1000, 65_536);
  for (const buffer of small) pool.give(buffer);
  assertEquals(countKept(pool, small), 512);
  const large = take(40, MIB);
  for (const buffer of [...small, ...large]) pool.give(buffer);
  assertEquals(countKept(pool, large), 32);
  assertEquals(countKept(pool, small), 0);
});

Deno.test("one buffer is kept, however large", () => {
  const pool = new BufferPool(32 * MIB);
  const { buffer } = pool.take(32 * MIB);
  pool.give(new Uint8Array(buffer));
  assertStrictEquals(pool.take(32 * MIB).buffer, buffer);
});
