import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { SlotPool } from "./slot_pool.ts";

openLibc();

const MIB = 1 << 20;

Deno.test("SlotPool lends buffers of exactly the length that was asked for", () => {
  using pool = new SlotPool();
  for (const length of [0, 1, 4095, 4096, 4097, 5000, MIB, MIB + 1, 64 * MIB]) {
    const slot = pool.acquire(length);
    assertEquals(slot.bytes.length, length);
    slot.bytes.fill(7);
    assertEquals(slot.address % 4096, 0);
    pool.release(slot);
  }
  assertThrows(() => pool.acquire(64 * MIB + 1), RangeError);
  assertEquals(pool.lent, 0);
});

Deno.test("SlotPool never lends a buffer twice, and lends it again once it is back", () => {
  using pool = new SlotPool();
  const one = pool.acquire(5000), two = pool.acquire(5000);
  assertNotEquals(one.address, two.address);
  assertEquals(pool.lent, 2);
  pool.release(one);
  assertEquals(pool.acquire(8000).address, one.address);
  assertNotEquals(pool.acquire(8192).address, one.address);
});

Deno.test("SlotPool keeps some free buffers in memory, and gives the pages of the others back", () => {
  using pool = new SlotPool();
  const slots = Array.from({ length: 64 }, () => pool.acquire(MIB));
  for (const slot of slots) slot.bytes.fill(9);
  for (const slot of slots) pool.release(slot);
  const again = slots.map(() => pool.acquire(MIB));
  const kept = again.filter(({ bytes }) => bytes[5] === 9).length;
  assertEquals(kept, 16, "16 MiB are as they were, the rest is fresh pages of zeroes");
  assertEquals(new Set(again.map(({ address }) => address)).size, 64);
  for (const slot of again) pool.release(slot);
});

Deno.test("SlotPool reuses what is in memory before what is not", () => {
  using pool = new SlotPool();
  const slots = Array.from({ length: 40 }, () => pool.acquire(MIB));
  for (const slot of slots) {
    slot.bytes[0] = 1;
    pool.release(slot);
  }
  for (let round = 0; round < 100; round++) {
    const slot = pool.acquire(MIB);
    assert(slot.bytes[0] === 1, "A buffer in use over and over keeps its pages");
    pool.release(slot);
  }
});
