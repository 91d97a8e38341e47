/**
 * Writes to parts of chunks that are not in the cache yet, while the remote is away: what a flush
 * promised is there after the power went, and is put together with the rest when the remote is back.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../ffi/libc.ts";
import { ConnectionError } from "../lib/backend/errors.ts";
import { CacheStage } from "../lib/chunk/cache.ts";
import { loadJournal, stateSize } from "../lib/chunk/journal_load.ts";
import { assertBytes, pattern, readBack } from "./backend_model.ts";
import { chooser, Power, PowerCutDisk } from "./power_cut.ts";
import { ScheduledBackend } from "./scheduled_backend.ts";

openLibc();

const CHUNK = 4096;

/** A remote that may be away, and the disks of a cache. */
class World {
  readonly size: number;
  /** Of the cache that was opened last. */
  remote: ScheduledBackend;
  readonly cacheDisk: PowerCutDisk;
  readonly stateDisk: PowerCutDisk;
  remoteIsAway = false;
  /** Calls on the remote. */
  readonly calls: string[] = [];

  constructor(size: number) {
    this.size = size;
    this.cacheDisk = new PowerCutDisk(size);
    this.stateDisk = new PowerCutDisk(stateSize(size, CHUNK));
    this.remote = this.#connect(pattern(size, 1));
  }

  /** Opens a cache, by a connection of its own. */
  async open(): Promise<CacheStage> {
    this.remote = this.#connect(this.remote.kept);
    const power = new Power({ choose: chooser(1) });
    const cache = this.cacheDisk.open(power);
    const journal = await loadJournal({
      ...{ state: this.stateDisk.open(power), cache, name: "the state" },
      ...{ size: this.size, chunkSize: CHUNK },
      ...{ cacheId: new Uint8Array(16), remote: { id: new Uint8Array(16) } },
    });
    return new CacheStage({
      ...{ remote: this.remote, local: cache, chunkSize: CHUNK, journal },
      push: { interval: 0, retryPause: 1, log: () => {} },
    });
  }

  /** All that was not flushed is gone. */
  cut(): void {
    for (const disk of [this.cacheDisk, this.stateDisk]) disk.cut(() => 0);
  }

  #connect(bytes: Uint8Array): ScheduledBackend {
    const remote = new ScheduledBackend({
      size: this.size,
      step: (name) => Promise.resolve(this.calls.push(name)),
      fails: () => this.remoteIsAway,
    });
    remote.bytes.set(bytes);
    remote.kept.set(bytes);
    return remote;
  }
}

const WRITES = [[100, 50], [300, 1], [CHUNK * 2 - 10, 20], [CHUNK * 5 + 7, 2 * CHUNK]] as const;

/** Writes those, and tells what the region holds then. */
async function writeParts(cache: CacheStage, expected: Uint8Array): Promise<void> {
  for (const [offset, length] of WRITES) {
    expected.set(pattern(length, offset), offset);
    await cache.writeAt(pattern(length, offset), offset);
  }
}

Deno.test("a flush without the remote keeps parts of chunks over a power cut, and they are pushed", async () => {
  const world = new World(16 * CHUNK);
  const expected = pattern(world.size, 1);
  world.remoteIsAway = true;
  const before = await world.open();
  await writeParts(before, expected);
  await before.flush();
  assertEquals(world.calls.filter((name) => name.startsWith("read")), []);
  await before.writeAt(new Uint8Array([1]), 9 * CHUNK);
  world.cut();

  const cache = await world.open();
  const { partial, states } = cache.region;
  assertEquals([...partial.chunks()], [0, 1, 2, 5, 7]);
  assertEquals([states.localCount, states.dirtyCount, cache.region.journal.found.dirty], [1, 1, 6]);
  for (const [offset, length] of WRITES) {
    assertBytes(await readBack(cache, offset, length), pattern(length, offset), `At ${offset}`);
  }
  await assertRejects(() => readBack(cache, 0, CHUNK), ConnectionError);
  await assertRejects(() => cache.sync(), ConnectionError);
  await cache.flush();
  world.remoteIsAway = false;
  await cache.sync();
  assertBytes(world.remote.kept, expected, "The remote");
  assertEquals(cache.region.dirtyBytes, 0);
  await cache.close();

  const again = await world.open();
  assertEquals(again.region.journal.found.dirty, 0);
  assertBytes(await readBack(again, 0, world.size), expected, "What was put together");
  await again.close();
});

Deno.test("a cache that closes without the remote keeps parts of chunks that were not flushed", async () => {
  const world = new World(16 * CHUNK);
  const expected = pattern(world.size, 1);
  world.remoteIsAway = true;
  const before = await world.open();
  await writeParts(before, expected);
  await before.close();
  world.cut();
  world.remoteIsAway = false;
  const cache = await world.open();
  assert(cache.region.journal.found.closedInOrder);
  assertBytes(await readBack(cache, 0, world.size), expected, "The cache");
  await cache.sync();
  assertBytes(world.remote.kept, expected, "The remote");
  await cache.close();
});

Deno.test("a chunk that is fetched after its part was promised is not lost when the power goes", async () => {
  for (const flushes of [0, 1, 2]) {
    const world = new World(16 * CHUNK);
    const expected = pattern(world.size, 1);
    const before = await world.open();
    await writeParts(before, expected);
    await before.flush();
    assertBytes(await readBack(before, 0, world.size), expected, "As a whole");
    for (let count = 0; count < flushes; count++) await before.flush();
    world.cut();
    const cache = await world.open();
    await cache.sync();
    assertBytes(world.remote.kept, expected, `The remote, after ${flushes} flushes`);
    await cache.close();
  }
});

Deno.test("where there are too many parts, a flush fetches the rest, and fails without the remote", async () => {
  const chunks = 22_000;
  const world = new World(chunks * CHUNK);
  const cache = await world.open();
  world.remoteIsAway = true;
  await cache.writeAt(pattern(200, 5), 200);
  await cache.flush();
  // Writes are not let come to so many: they are completed before, or wait.
  for (let chunk = 1; chunk < chunks; chunk++) {
    cache.region.partial.add(chunk, chunk * CHUNK + 200, chunk * CHUNK + 400);
  }
  await assertRejects(() => cache.flush(), ConnectionError);
  world.remoteIsAway = false;
  await cache.flush();
  assertEquals([cache.region.partial.count, cache.region.states.dirtyCount], [0, chunks]);
  assertBytes(await readBack(cache, 200, 200), pattern(200, 5), "What was written");
  await cache.close();
});
