import { openLibc } from "../../ffi/libc.ts";
import { assert, assertEquals } from "@std/assert";
import { openMemory } from "../backend/memory.ts";
import { SlowStage } from "./slow.ts";

openLibc();

const MIB = 1 << 20;

Deno.test("writes keep to the rate, in their order, and reads do not", async () => {
  await using slow = new SlowStage(openMemory({ size: MIB }));
  slow.slow(2 * MIB);
  const start = performance.now();
  const piece = new Uint8Array(MIB / 4);
  const order: number[] = [];
  await Promise.all([1, 2, 3, 4].map(async (value) => {
    await slow.writeAt(piece.slice().fill(value), 0);
    order.push(value);
  }));
  const lasted = performance.now() - start;
  // The last one begins once the three before it were earned, but for what is kept.
  assert(lasted >= 300, `${lasted} ms`);
  assertEquals(order, [1, 2, 3, 4]);
  const read = new Uint8Array(1);
  assertEquals(slow.readAt(read, 0), undefined);
  assertEquals(read, Uint8Array.of(4));
});

Deno.test("what waits goes on at once where the rate is lifted", async () => {
  await using slow = new SlowStage(openMemory({ size: MIB }));
  slow.slow(1);
  const writes = Promise.all([slow.writeAt(new Uint8Array(MIB), 0), slow.zero!(0, MIB)]);
  slow.slow(Infinity);
  await writes;
  assertEquals(slow.writeAt(new Uint8Array(1), 0), undefined);
});
