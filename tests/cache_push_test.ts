/** Pushing: when, how much at a time, what holds writes up, and failures. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { openLibc } from "../ffi/libc.ts";
import { ConnectionError, UsageError } from "../lib/backend/errors.ts";
import { openMemory } from "../lib/backend/memory.ts";
import { CacheStage } from "../lib/chunk/cache.ts";
import type { PushOptions } from "../lib/chunk/push.ts";
import { assertBytes, pattern, readBack } from "./backend_model.ts";
import { Gate, settle } from "./gate.ts";
import { ScheduledBackend } from "./scheduled_backend.ts";

openLibc();

const KIB = 1 << 10, MIB = 1 << 20;

/** A cache of memory over a region with a gate before it, which fails as it is told. */
function near(size: number, chunkSize: number, options: PushOptions = {}) {
  const gate = new Gate();
  const state = { fails: (_name: string) => false };
  let name = "";
  const remote = new ScheduledBackend({
    size,
    step: async (step) => {
      await gate.step(step);
      name = step;
    },
    fails: () => state.fails(name),
  });
  const lines: string[] = [];
  const cache = new CacheStage({
    ...{ remote, local: openMemory({ size }), chunkSize },
    push: { interval: 0, retryPause: 1, log: (line) => lines.push(line), ...options },
  });
  return { gate, state, remote, cache, lines };
}

/** Answers once something holds that only a timer brings about. */
async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + 5000;
  while (!condition()) {
    assert(performance.now() < end, "It takes too long");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

Deno.test("sync pushes what is dirty, neighbours together, and has it flushed", async () => {
  const size = 3 * MIB + 5000;
  const { cache, remote, gate } = near(size, 64 * KIB);
  const expected = pattern(size, 1);
  await cache.writeAt(expected.subarray(0, 2 * MIB), 0);
  await cache.writeAt(expected.subarray(3 * MIB), 3 * MIB);
  await cache.writeAt(expected.subarray(0, 5), 0);
  await cache.sync();
  assertEquals(gate.log, [
    `write 0+${MIB}`,
    `write ${MIB}+${MIB}`,
    `write ${3 * MIB}+5000`,
    "flush 0+0",
  ]);
  expected.fill(0, 2 * MIB, 3 * MIB);
  assertBytes(remote.kept, expected, "The remote");
  assertEquals(cache.region.dirtyBytes, 0);
  await cache.sync();
  assertEquals(gate.log.length, 4, "Nothing is pushed twice");
  await cache.close();
});

Deno.test("zeroes are pushed as such", async () => {
  const { cache, remote, gate } = near(MIB, 64 * KIB);
  remote.bytes.fill(7);
  await cache.writeAt(new Uint8Array(128 * KIB), 0);
  await cache.zero!(256 * KIB, 64 * KIB);
  await cache.writeAt(new Uint8Array(64 * KIB).fill(1), 320 * KIB);
  await cache.sync();
  assertEquals(gate.log, ["zero 0+131072", "zero 262144+65536", "write 327680+65536", "flush 0+0"]);
  await cache.close();
});

Deno.test("what the cache holds as zeroes is not read to be pushed, however much it is", async () => {
  const size = 2 ** 40, chunkSize = 64 * KIB;
  const remote = openMemory({ size });
  const cache = new CacheStage({ remote, local: openMemory({ size }), chunkSize });
  const at = 700 * 2 ** 30 + 5 * chunkSize;
  for (const offset of [0, at, size - 4096]) remote.writeAt(pattern(4096, 1), offset);
  const began = performance.now();
  await cache.discard!(0, size);
  await cache.writeAt(pattern(200_000, 2), at);
  await cache.sync();
  assert(performance.now() - began < 15_000, `It took ${performance.now() - began} ms`);
  const written = remote.extents(0, size).filter(({ zero }) => !zero);
  assertEquals(written.map(({ offset, length }) => [offset, length]), [[at, 4 * chunkSize]]);
  assertBytes(await readBack(remote, at, 200_000), pattern(200_000, 2), "What was written");
  assertEquals(cache.region.states.dirtyCount, 0);
  await cache.close();
});

Deno.test("zeroes that are written while they are pushed arrive", async () => {
  const size = 8 * MIB;
  const { cache, remote, gate } = near(size, 64 * KIB, { workers: 1 });
  remote.bytes.fill(7);
  await cache.writeAt(pattern(64 * KIB, 1), 0);
  await cache.zero!(64 * KIB, size - 64 * KIB);
  gate.hold();
  const sync = cache.sync();
  await settle();
  await cache.writeAt(pattern(64 * KIB, 2), 5 * MIB);
  gate.pass();
  await until(() => gate.waiting.length > 0);
  await cache.writeAt(pattern(64 * KIB, 3), 6 * MIB);
  gate.open();
  await sync;
  const first = remote.kept.slice();
  assertBytes(first.subarray(5 * MIB, 5 * MIB + 64 * KIB), pattern(64 * KIB, 2), "The first");
  await cache.sync();
  assertBytes(remote.kept, await readBack(cache, 0, size), "The remote");
  await cache.close();
});

Deno.test("what is dirty is pushed every so often", async () => {
  const { cache, remote } = near(MIB, 64 * KIB, { interval: 5 });
  for (const seed of [1, 2]) {
    await cache.writeAt(pattern(64 * KIB, seed), 0);
    await until(() => cache.region.states.dirtyCount === 0);
    assertBytes(remote.kept.subarray(0, 64 * KIB), pattern(64 * KIB, seed), "The remote");
  }
  await cache.close();
});

Deno.test("what was pulled is recorded every so often", async () => {
  const local = openMemory({ size: MIB });
  let flushes = 0;
  const counted = {
    ...{ size: MIB, blockSize: 1, durable: true, readOnly: false },
    readAt: (buffer: Uint8Array, offset: number) => local.readAt(buffer, offset),
    writeAt: (buffer: Uint8Array, offset: number) => local.writeAt(buffer, offset),
    flush: () => void flushes++,
    close: () => local.close(),
    [Symbol.asyncDispose]: () => local[Symbol.asyncDispose](),
  };
  const remote = openMemory({ size: MIB });
  const cache = new CacheStage({
    ...{ remote, local: counted, chunkSize: 4096 },
    push: { interval: 1 },
  });
  for (const at of [0, 500_000]) {
    const before = flushes;
    await readBack(cache, at, 1);
    await until(() => flushes > before);
  }
  await settle();
  assertEquals(flushes, 2, "Nothing is recorded twice");
  await cache.close();
});

Deno.test("a remote that fails fails sync, loses nothing, and is tried again", async () => {
  const { cache, remote, state, gate } = near(MIB, 64 * KIB);
  const bytes = pattern(MIB, 3);
  await cache.writeAt(bytes, 0);
  for (const operation of ["write", "flush"]) {
    state.fails = (name) => name.startsWith(operation);
    gate.log.length = 0;
    await assertRejects(() => cache.sync(), ConnectionError);
    assertEquals(gate.log.filter((name) => name.startsWith(operation)).length, 3, "Three tries");
    assertEquals(cache.region.dirtyBytes, MIB);
    assertEquals(cache.region.states.isPushing(0), false);
    assertBytes(await readBack(cache, 0, MIB), bytes, "The cache");
  }
  await cache.writeAt(pattern(10, 4), 70_000);
  bytes.set(pattern(10, 4), 70_000);
  state.fails = () => false;
  await cache.sync();
  assertBytes(remote.kept, bytes, "The remote");
  await cache.close();
});

Deno.test("a chunk that the remote does not take keeps no other one back", async () => {
  const { cache, remote, state } = near(16 * 4096, 4096, { workers: 1 });
  const bytes = pattern(16 * 4096, 5);
  for (const chunk of [0, 2, 4, 6, 8]) {
    await cache.writeAt(bytes.subarray(chunk * 4096, (chunk + 1) * 4096), chunk * 4096);
  }
  state.fails = (name) => name.startsWith("write 16384+");
  await assertRejects(() => cache.sync(), ConnectionError);
  assertEquals(cache.region.states.dirtyCount, 1);
  for (const chunk of [0, 2, 6, 8]) {
    const [from, to] = [chunk * 4096, (chunk + 1) * 4096];
    assertBytes(remote.kept.subarray(from, to), bytes.subarray(from, to), `Chunk ${chunk}`);
  }
  await cache.close();
});

Deno.test("what a remote lost that was started again is pushed again", async () => {
  const { cache, remote, state, gate } = near(MIB, 64 * KIB, { flushBytes: 1, workers: 1 });
  const bytes = new Uint8Array(MIB);
  for (const at of [0, 256 * KIB, 512 * KIB]) {
    bytes.set(pattern(64 * KIB, at + 1), at);
    await cache.writeAt(bytes.slice(at, at + 64 * KIB), at);
  }
  // The second chunk is there, but not flushed, when the flush after the first one fails.
  let failures = 1;
  gate.hold(/flush/);
  state.fails = (name) => name === "flush 0+0" && failures-- > 0;
  const sync = cache.sync();
  await settle();
  assertEquals(gate.waiting, ["flush 0+0"]);
  gate.open();
  await sync;
  assertBytes(remote.kept, bytes, "The remote");
  await cache.close();
});

Deno.test("too much that is dirty holds writes up until some is pushed", async () => {
  const { cache, remote, gate } = near(16 * 4096, 4096, { dirtyLimit: 0.25 });
  gate.hold();
  const bytes = pattern(16 * 4096, 6);
  const writes = Array.from({ length: 16 }, (_, chunk) => {
    const [from, to] = [chunk * 4096, (chunk + 1) * 4096];
    return cache.writeAt(bytes.subarray(from, to), from);
  });
  assertEquals(writes.filter((write) => write === undefined).length, 4);
  assertEquals(cache.writeAt(bytes.subarray(0, 10), 0), undefined, "A dirty chunk gets no dirtier");
  gate.open();
  await Promise.all(writes);
  await cache.sync();
  assertBytes(remote.kept, bytes, "The remote");
  await cache.close();
});

Deno.test("a write that waits fails as pushing does, and later ones go on", async () => {
  const { cache, state, lines } = near(8 * 4096, 4096, { dirtyLimit: 0.25 });
  state.fails = () => true;
  const write = (chunk: number) => cache.writeAt(pattern(4096, chunk), chunk * 4096);
  await write(0);
  await write(1);
  await assertRejects(async () => await write(2), ConnectionError);
  assertEquals(lines, ["Cannot push to the remote, trying on: Lost before the write"]);
  state.fails = () => false;
  await write(2);
  await until(() => lines.length === 2);
  assertEquals(lines[1], "Pushing to the remote works again");
  await cache.close();
});

Deno.test("so many requests as workers are in flight", async () => {
  const { cache, gate } = near(8 * MIB, MIB, { workers: 3 });
  await cache.writeAt(pattern(8 * MIB, 1), 0);
  gate.hold();
  const sync = cache.sync();
  await settle();
  assertEquals(gate.waiting.length, 3);
  gate.open();
  await sync;
  assertEquals(gate.most, 3);
  await cache.close();
});

Deno.test("while somebody waits for a read, one request at a time is pushed", async () => {
  const { cache, gate } = near(16 * MIB, MIB, { workers: 8 });
  await cache.writeAt(pattern(8 * MIB, 1), 0);
  gate.hold(/read/);
  const read = readBack(cache, 12 * MIB, 10);
  await settle();
  gate.log.length = 0;
  gate.hold();
  const sync = cache.sync();
  await until(() => gate.log.length === 1);
  await settle();
  assertEquals(gate.waiting.filter((name) => name.startsWith("write")).length, 1);
  gate.pass(/read/);
  await read;
  gate.open();
  await sync;
  await cache.close();
});

Deno.test("offline, what is local is read, everything is written, and pushed on return", async () => {
  const size = 64 * 4096;
  const { cache, remote, gate, state } = near(size, 4096);
  const bytes = pattern(size, 7);
  remote.bytes.set(bytes);
  await readBack(cache, 0, 8 * 4096);
  gate.hold();
  state.fails = () => true;
  assertEquals(cache.readAt(new Uint8Array(4096), 4096), undefined);
  await cache.writeAt(pattern(10, 8), 40 * 4096);
  bytes.set(pattern(10, 8), 40 * 4096);
  assertEquals(cache.region.dirtyBytes, 4096, "A chunk that is there in part is owed");
  for (
    const [offset, length] of [[100, 50], [9 * 4096, 4096], [20 * 4096 + 7, 3 * 4096]] as const
  ) {
    bytes.set(pattern(length, offset), offset);
    assertEquals(cache.writeAt(pattern(length, offset), offset), undefined, "At once");
    assertBytes(await readBack(cache, offset, length), pattern(length, offset), "It");
  }
  const absent = assertRejects(() => readBack(cache, 20 * 4096, 4096), ConnectionError);
  const sync = assertRejects(() => cache.sync(), ConnectionError);
  gate.open();
  await Promise.all([absent, sync]);
  state.fails = () => false;
  await cache.sync();
  assertBytes(remote.kept, bytes, "The remote");
  await cache.close();
});

Deno.test("options that make no sense are refused", () => {
  for (const options of [{ workers: 0 }, { interval: -1 }, { dirtyLimit: 0 }, { dirtyLimit: 2 }]) {
    assertThrows(() => near(MIB, 4096, options), UsageError);
  }
});
