/**
 * What a cache before a remote region promises, and what implementations of such mounts are known to
 * break: writes that get lost on their way, failures that nobody is told of, and closing that hangs.
 */
import { assertEquals, assertRejects } from "@std/assert";
import { ERRNO, SystemError } from "../../ffi/errno.ts";
import { openLibc } from "../../ffi/libc.ts";
import { ClosedError, ConnectionError } from "../../lib/backend/errors.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { type CacheOptions, CacheStage } from "../../lib/chunk/cache.ts";
import { Draws } from "../../lib/chunk/draws.ts";
import { loadJournal, stateSize } from "../../lib/chunk/journal_load.ts";
import { openManaged } from "../../lib/host/managed_backend.ts";
import { assertBytes, pattern, readBack } from "../backend_model.ts";
import { BlockBackend } from "../block_backend.ts";
import { CountedState } from "../counted_state.ts";
import { Gate, settle } from "../gate.ts";
import { ScheduledBackend } from "../scheduled_backend.ts";
import { VirtualClock } from "../virtual_clock.ts";
import { inTime } from "../in_time.ts";

openLibc();

const CHUNK = 4096, SIZE = 16 * CHUNK;

/** A region behind a gate, whose operations fail as they are told to. */
function gated(size = SIZE) {
  const gate = new Gate();
  const store = { gate, fails: (_name: string) => false };
  let name = "";
  const backend = new ScheduledBackend({
    size,
    step: async (step) => {
      await gate.step(step);
      name = step;
    },
    fails: () => store.fails(name),
  });
  return Object.assign(store, { backend });
}

/** A cache over such a region, which pushes only when it is asked to. */
function cached(options: Partial<CacheOptions> = {}) {
  const remote = gated();
  const cache = new CacheStage({
    ...{ remote: remote.backend, local: openMemory({ size: SIZE }), chunkSize: CHUNK },
    push: { interval: 0, retryPause: 1, log: () => {} },
    ...options,
  });
  return { remote, cache };
}

Deno.test("what is written reaches the remote by itself, with no option given", async () => {
  using clock = new VirtualClock();
  const flushed = Promise.withResolvers<void>();
  const remote = new ScheduledBackend({
    size: SIZE,
    step: (name) => {
      if (name === "flush 0+0 answered" && remote.kept.some((byte) => byte > 0)) flushed.resolve();
      return Promise.resolve();
    },
    fails: () => false,
  });
  const mounted = await openManaged(remote, new Uint8Array(16), "memory:", {}, () => {});
  await mounted.writeAt(pattern(SIZE, 1), 0);
  await clock.run(flushed.promise);
  assertBytes(remote.kept, pattern(SIZE, 1), "The remote");
  await clock.run(mounted.close());
});

for (const held of [/^write/, /^flush/]) {
  Deno.test(`a write while its chunk is pushed (${held.source}) goes with the next sync`, async () => {
    const { remote, cache } = cached();
    await cache.writeAt(pattern(CHUNK, 1), 0);
    remote.gate.hold(held);
    const sync = cache.sync();
    await settle();
    assertEquals(remote.gate.waiting.length, 1);
    await cache.writeAt(pattern(CHUNK, 2), 0);
    remote.gate.open();
    await sync;
    await cache.sync();
    assertBytes(remote.backend.kept.subarray(0, CHUNK), pattern(CHUNK, 2), "The remote");
    await cache.close();
  });
}

Deno.test("a write that waited for the copy of its chunk goes with the next sync", async () => {
  const local = gated();
  const { remote, cache } = cached({ local: local.backend });
  await cache.writeAt(pattern(CHUNK, 1), 0);
  local.gate.hold(/^read/);
  const sync = cache.sync();
  await settle();
  assertEquals(local.gate.waiting, [`read 0+${CHUNK}`]);
  const write = cache.writeAt(pattern(CHUNK, 2), 0);
  local.gate.open();
  await Promise.all([sync, write]);
  await cache.sync();
  assertBytes(remote.backend.kept.subarray(0, CHUNK), pattern(CHUNK, 2), "The remote");
  await cache.close();
});

Deno.test("writers of the same chunks and syncs side by side lose nothing", async () => {
  const seed = Math.floor(Math.random() * 2 ** 31) + 1;
  console.log(`seed ${seed}`);
  const draws = new Draws(seed, "writers");
  const backend = () => new BlockBackend({ size: SIZE, blockSize: 1, seed });
  const remote = backend();
  const { cache } = cached({ remote, local: backend() });
  const PART = 512, VERSIONS = 8, expected = new Uint8Array(SIZE);
  let writing = SIZE / PART;
  const writers = Array.from({ length: SIZE / PART }, async (_, writer) => {
    for (let version = 0; version < VERSIONS; version++) {
      const draw = draws.at(writer * VERSIONS + version);
      for (let turn = 0; turn < draw * 300; turn++) await Promise.resolve();
      const bytes = pattern(PART, Math.floor(draw * 256));
      await cache.writeAt(bytes, writer * PART);
      expected.set(bytes, writer * PART);
    }
    writing--;
  });
  const syncing = (async () => {
    while (writing > 0) await cache.sync();
  })();
  await inTime(Promise.all([...writers, syncing]));
  await cache.sync();
  assertBytes(await readBack(remote, 0, SIZE), expected, "The remote");
  await cache.close();
});

for (const operation of ["write", "flush"]) {
  Deno.test(`a sync of which the remote failed a ${operation} fails, and owes it still`, async () => {
    const { remote, cache } = cached();
    await cache.writeAt(pattern(SIZE, 3), 0);
    remote.fails = (name) => name.startsWith(operation);
    await assertRejects(() => cache.sync(), ConnectionError);
    assertEquals(cache.region.dirtyBytes, SIZE);
    remote.fails = () => false;
    await cache.sync();
    assertBytes(remote.backend.kept, pattern(SIZE, 3), "The remote");
    await cache.close();
  });
}

Deno.test("a chunk that the cache's store did not take is not read from there", async () => {
  const local = gated();
  const { remote, cache } = cached({ local: local.backend });
  remote.backend.bytes.set(pattern(SIZE, 4));
  local.fails = (name) => name.startsWith("write");
  await assertRejects(() => readBack(cache, 0, SIZE), ConnectionError);
  assertEquals(cache.region.localBytes, 0);
  local.fails = () => false;
  assertBytes(await readBack(cache, 0, SIZE), pattern(SIZE, 4), "It");
  await cache.close();
});

Deno.test("a sync answers no sooner than the remote has flushed, by remote durability too", async () => {
  const { remote, cache } = cached({ durability: "remote" });
  for (const promise of ["sync", "flush"] as const) {
    await cache.writeAt(pattern(SIZE, promise.length), 0);
    remote.gate.hold(/^flush/);
    let answered = false;
    const synced = cache[promise]().then(() => answered = true);
    await settle();
    assertEquals([remote.gate.waiting, answered], [["flush 0+0"], false]);
    remote.gate.open();
    await synced;
    assertBytes(remote.backend.kept, pattern(SIZE, promise.length), "The remote");
  }
  await cache.close();
});

Deno.test("pulls that fail side by side are told of, and all is pulled afterwards", async () => {
  const { remote, cache } = cached();
  remote.fails = (name) => name.startsWith("read");
  const puller = cache.pull({ workers: 8, retryPause: 1, log: () => {} });
  await assertRejects(() => inTime(puller.complete()), ConnectionError);
  remote.fails = () => false;
  await inTime(puller.complete());
  assertEquals(cache.region.localBytes, SIZE);
  await cache.close();
});

Deno.test("closing ends pulls that fail, and tells who waits for them", async () => {
  const { remote, cache } = cached();
  remote.fails = () => true;
  const puller = cache.pull({ workers: 8, retryPause: 60_000, log: () => {} });
  const complete = assertRejects(() => puller.complete(), ClosedError);
  await settle();
  await inTime(Promise.all([cache.close(), complete]));
});

Deno.test("closing ends a push that fails, and tells who waits for it", async () => {
  const push = { interval: 0, retryPause: 60_000, log: () => {} };
  const { remote, cache } = cached({ push });
  remote.fails = () => true;
  await cache.writeAt(pattern(SIZE, 5), 0);
  const sync = assertRejects(() => cache.sync());
  await settle();
  await inTime(Promise.all([cache.close(), sync]));
});

for (const size of [1, CHUNK - 1, CHUNK + 1, 3 * CHUNK + 5]) {
  for (const chunkSize of [CHUNK, 4 * CHUNK]) {
    Deno.test(`${size} bytes in chunks of ${chunkSize} are pulled and pushed to the last one`, async () => {
      const remote = openMemory({ size });
      remote.writeAt(pattern(size, 6), 0);
      const cache = new CacheStage({ remote, local: openMemory({ size }), chunkSize });
      await cache.pull().complete();
      assertEquals(cache.region.localBytes, size);
      assertBytes(await readBack(cache, 0, size), pattern(size, 6), "What was pulled");
      await cache.writeAt(new Uint8Array([99]), size - 1);
      await cache.sync();
      assertEquals((await readBack(remote, size - 1, 1))[0], 99);
      assertEquals(cache.region.dirtyBytes, 0);
      await cache.close();
    });
  }
}

Deno.test("a flush and a write that failed hold nothing up, and can be repeated", async () => {
  const local = gated();
  const { cache } = cached({ local: local.backend });
  await cache.writeAt(pattern(SIZE, 7), 0);
  local.fails = (name) => name.startsWith("flush");
  await assertRejects(() => cache.flush(), ConnectionError);
  local.fails = (name) => name.startsWith("write");
  await assertRejects(async () => await cache.writeAt(pattern(CHUNK, 7), 0), ConnectionError);
  local.fails = () => false;
  await inTime(Promise.resolve(cache.writeAt(pattern(CHUNK, 8), 0)));
  assertBytes(await readBack(cache, 0, CHUNK), pattern(CHUNK, 8), "It");
  await cache.flush();
  assertBytes(local.backend.kept.subarray(0, CHUNK), pattern(CHUNK, 8), "What is kept");
  await cache.close();
});

Deno.test("closing at any moment answers all that is under way", async () => {
  for (let turns = 0; turns < 40; turns++) {
    const backend = () => new BlockBackend({ size: SIZE, blockSize: 1, seed: turns + 1 });
    const push = { interval: 0, dirtyLimit: 0.1, log: () => {} };
    const { cache } = cached({ remote: backend(), local: backend(), push });
    const puller = cache.pull({ workers: 4, log: () => {} });
    const writeSome = async () => {
      for (let chunk = 2; chunk < 8; chunk++) {
        await cache.writeAt(pattern(CHUNK, chunk), chunk * CHUNK);
      }
    };
    const calls = Promise.allSettled([
      puller.complete(),
      readBack(cache, CHUNK, 5),
      cache.writeAt(pattern(CHUNK, 9), 8 * CHUNK),
      cache.writeAt(pattern(10, 9), 12 * CHUNK + 1),
      writeSome(),
      cache.flush(),
      cache.sync(),
    ]);
    for (let turn = 0; turn < turns; turn++) await Promise.resolve();
    await inTime(cache.close());
    for (const call of await inTime(calls)) {
      if (call.status === "rejected" && !(call.reason instanceof ClosedError)) throw call.reason;
    }
  }
});

Deno.test("opening fetches nothing, and a read its own chunk", async () => {
  const { remote, cache } = cached();
  await settle();
  assertEquals(remote.gate.log, []);
  await readBack(cache, 5 * CHUNK + 7, 1);
  assertEquals(remote.gate.log, [`read ${5 * CHUNK}+${CHUNK}`]);
  await cache.close();
});

Deno.test("a flush for which the remote has to vouch fails with it, also where a push failed before", async () => {
  using clock = new VirtualClock();
  const lines: string[] = [];
  const failed = Promise.withResolvers<void>();
  const log = (line: string) => {
    lines.push(line);
    failed.resolve();
  };
  const { remote, cache } = cached({ durability: "remote", push: { interval: 1000, log } });
  remote.fails = (name) => name.startsWith("flush");
  await cache.writeAt(pattern(SIZE, 10), 0);
  await clock.run(failed.promise);
  for (let turn = 0; turn < 2; turn++) {
    await clock.run(assertRejects(() => cache.flush(), ConnectionError));
  }
  remote.fails = () => false;
  await clock.run(cache.flush());
  assertBytes(remote.backend.kept, pattern(SIZE, 10), "The remote");
  assertEquals(lines.filter((line) => line.startsWith("Cannot push")).length, 1);
  await clock.run(cache.close());
});

Deno.test("what a journal cannot take is an error, and changes nothing", async () => {
  const state = new CountedState(new Uint8Array(stateSize(SIZE, CHUNK)));
  const local = openMemory({ size: SIZE });
  const journal = await loadJournal({
    ...{ state, cache: local, size: SIZE, chunkSize: CHUNK, name: "the state" },
    ...{ cacheId: new Uint8Array(16), remote: { id: new Uint8Array(16) } },
  });
  const { remote, cache } = cached({ local, journal });
  remote.backend.bytes.set(pattern(SIZE, 11));
  await readBack(cache, 0, SIZE);
  const full = new SystemError({ syscall: "pwrite", errno: ERRNO.ENOSPC });
  state.failure = full;
  const write = async () => await cache.writeAt(pattern(CHUNK, 12), 0);
  for (const call of [write, () => cache.flush(), write]) {
    assertEquals(await assertRejects(() => inTime(call()), SystemError), full);
  }
  assertBytes(await readBack(cache, 0, SIZE), pattern(SIZE, 11), "The region");
  state.failure = undefined;
  await inTime(write());
  await inTime(cache.sync());
  assertBytes(remote.backend.kept.subarray(0, CHUNK), pattern(CHUNK, 12), "The remote");
  await cache.close();
});
