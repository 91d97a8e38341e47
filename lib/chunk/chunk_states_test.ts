import { assertEquals, assertThrows } from "@std/assert";
import { Bitmap } from "../backend/bitmap.ts";
import { UsageError } from "../backend/errors.ts";
import { ChunkStates, countChunks } from "./chunk_states.ts";

function states(count: number): ChunkStates {
  return new ChunkStates({ local: new Bitmap(count), dirty: new Bitmap(count) });
}

Deno.test("chunks are counted, the last one being as short as it may be", () => {
  assertEquals(countChunks(1, 4096), 1);
  assertEquals(countChunks(8192, 4096), 2);
  assertEquals(countChunks(8193, 4096), 3);
  assertEquals(countChunks(100, 32 << 20), 1);
  for (const wrong of [0, 512, 4097, 6144, 64 << 20, NaN, -4096, 4096.5]) {
    assertThrows(() => countChunks(1 << 20, wrong), UsageError);
  }
  assertThrows(() => countChunks(2 ** 50, 4096), UsageError);
});

Deno.test("a chunk that is written while it is pushed stays dirty", () => {
  const chunks = states(4);
  for (const chunk of [0, 1, 2]) chunks.written(chunk);
  chunks.copied(0, 3);
  chunks.written(1);
  chunks.pushed(0, 3);
  assertEquals([0, 1, 2, 3].map((chunk) => chunks.dirty.has(chunk)), [false, true, false, false]);
  assertEquals(chunks.dirtyCount, 1);
  chunks.copied(1, 2);
  chunks.pushed(1, 2);
  assertEquals(chunks.dirtyCount, 0);
  assertEquals(chunks.localCount, 3);
});

Deno.test("what was not pushed stays dirty, and is not taken for written again", () => {
  const chunks = states(2);
  chunks.written(0);
  chunks.copied(0, 1);
  chunks.written(0);
  chunks.notPushed(0, 1);
  chunks.copied(0, 1);
  chunks.pushed(0, 1);
  assertEquals(chunks.dirtyCount, 0);
});

Deno.test("what an absent chunk was marked with does not show in a local one", () => {
  const chunks = states(3);
  chunks.pulling(0, 3);
  chunks.failed(1);
  chunks.written(0);
  chunks.written(1);
  assertEquals([0, 1].map((chunk) => chunks.isPushing(chunk)), [false, false]);
  chunks.copied(0, 2);
  chunks.written(1);
  chunks.notPulling(0, 3);
  chunks.failed(0);
  chunks.forgetFailures();
  assertEquals([0, 1].map((chunk) => chunks.isPushing(chunk)), [true, true]);
  assertEquals([0, 1, 2].map((chunk) => chunks.isPulling(chunk)), [false, false, false]);
  chunks.pushed(0, 2);
  assertEquals([0, 1].map((chunk) => chunks.dirty.has(chunk)), [false, true]);
});

Deno.test("chunks that failed are told until they are forgotten, or come", () => {
  const chunks = states(3);
  for (const chunk of [0, 1, 2]) chunks.failed(chunk);
  chunks.arrived(1);
  assertEquals([0, 1, 2].map((chunk) => chunks.hasFailed(chunk)), [true, false, true]);
  chunks.forgetFailures();
  assertEquals([0, 1, 2].map((chunk) => chunks.hasFailed(chunk)), [false, false, false]);
});
