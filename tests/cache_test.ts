/** The cache stage: the contract over several chunk sizes, and what waits for what. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { openLibc } from "../ffi/libc.ts";
import type { Backend } from "../lib/backend/backend.ts";
import { ClosedError, ReadOnlyError, UsageError } from "../lib/backend/errors.ts";
import { openFile } from "../lib/backend/file.ts";
import { type MemoryBackend, openMemory, openSharedMemory } from "../lib/backend/memory.ts";
import { type CacheOptions, CacheStage, type Durability } from "../lib/chunk/cache.ts";
import { openJournal } from "../lib/chunk/journal_file.ts";
import { testBackend } from "./backend_conformance.ts";
import { assertBytes, assertExtents, pattern, readBack } from "./backend_model.ts";
import { BlockBackend } from "./block_backend.ts";
import { Gate, settle } from "./gate.ts";
import { ScheduledBackend } from "./scheduled_backend.ts";

openLibc();

const KIB = 1 << 10, MIB = 1 << 20, TIB = 2 ** 40;

function cached(remote: Backend, local: Backend, chunkSize: number, durability?: Durability) {
  return new CacheStage({ remote, local, chunkSize, durability });
}

const shapes = [
  { name: "4 KiB chunks with an odd tail", size: 5 * MIB + 1234, chunkSize: 4 * KIB },
  { name: "12 KiB chunks", size: 5 * MIB + 1, chunkSize: 12 * KIB },
  { name: "2 MiB chunks with an odd tail", size: 9 * MIB + 77, chunkSize: 2 * MIB },
  { name: "a chunk larger than the region", size: 300_001, chunkSize: 32 * MIB },
  { name: "1 TiB", size: TIB, chunkSize: 64 * KIB },
];
for (const { name, size, chunkSize } of shapes) {
  for (const durability of ["local", "remote"] as const) {
    testBackend(`a cache of memory in memory, ${name}, durable ${durability}`, {
      open: () => cached(openMemory({ size }), openMemory({ size }), chunkSize, durability),
      runs: 15,
    });
  }
}

const slow = [
  { name: "a slow remote", local: undefined, remote: 3 },
  { name: "a slow cache", local: 5, remote: undefined },
  { name: "both slow", local: 7, remote: 11 },
];
for (const { name, local, remote } of slow) {
  const size = 3 * MIB + 1000;
  const blocks = (seed: number | undefined, blockSize: number) =>
    new BlockBackend({ size, blockSize, ...(seed === undefined ? {} : { seed }) });
  testBackend(`a cache, ${name}, with blocks smaller than chunks`, {
    open: () => cached(blocks(remote, 512), blocks(local, 512), 8 * KIB),
  });
  testBackend(`a cache, ${name}, with blocks larger than chunks, pushed`, {
    open: () => cached(blocks(remote, 8192), blocks(local, 1000), 4 * KIB, "remote"),
  });
}

let directory = "";
let remote: MemoryBackend;
const SIZE = 5 * MIB + 1234, CHUNK = 64 * KIB;

/** A cache in a file, with a journal, over a region that outlives it. */
async function openJournalled(durability: Durability, readOnly = false): Promise<CacheStage> {
  const url = `file:${directory}/cache`;
  const local = await openFile({ path: `${directory}/cache`, size: SIZE });
  const journal = await openJournal({
    ...{ url, cache: local, size: SIZE, chunkSize: CHUNK },
    remote: { id: new Uint8Array(16).fill(5) },
  });
  const kept: Backend = openSharedMemory(remote.share());
  return new CacheStage({ remote: kept, local, chunkSize: CHUNK, durability, journal, readOnly });
}

for (const durability of ["local", "remote"] as const) {
  testBackend(`a cache in a file with a journal, durable ${durability}`, {
    open: () => {
      directory = Deno.makeTempDirSync();
      remote = openMemory({ size: SIZE });
      return openJournalled(durability);
    },
    reopen: () => openJournalled(durability),
    openReadOnly: () => openJournalled(durability, true),
    remove: () => {
      remote.close();
      Deno.removeSync(directory, { recursive: true });
    },
    runs: 10,
  });
}

/** A cache of memory over a region behind a gate. */
function gated(size = 64 * KIB, chunkSize = 4 * KIB, options: Partial<CacheOptions> = {}) {
  const gate = new Gate();
  const remote = new ScheduledBackend({ size, step: gate.step, fails: () => false });
  remote.bytes.set(pattern(size, 1));
  const local = openMemory({ size });
  const push = { interval: 0 };
  const cache = new CacheStage({ remote, local, chunkSize, push, ...options });
  return { gate, remote, local, cache };
}

Deno.test("what is local is read and written at once", async () => {
  const { cache } = gated();
  await readBack(cache, 0, 8 * KIB);
  assertEquals(cache.readAt(new Uint8Array(5000), 1000), undefined);
  assertEquals(cache.writeAt(new Uint8Array(5000), 1000), undefined);
  assertEquals(cache.writeAt(new Uint8Array(4 * KIB), 12 * KIB), undefined, "A whole chunk");
  assertEquals(cache.zero!(12 * KIB, 5), undefined);
  assertEquals(cache.readAt(new Uint8Array(4 * KIB), 12 * KIB), undefined);
  await cache.close();
});

Deno.test("a chunk is fetched once, however many read it", async () => {
  const { cache, gate } = gated();
  gate.hold();
  const reads = Array.from({ length: 20 }, (_, index) => readBack(cache, index * 500, 3000));
  await settle();
  gate.open();
  const expected = pattern(64 * KIB, 1);
  for (const [index, bytes] of (await Promise.all(reads)).entries()) {
    assertBytes(bytes, expected.subarray(index * 500, index * 500 + 3000), `Read ${index}`);
  }
  const chunks = gate.log.flatMap((name) => {
    const [, offset, length] = /(\d+)\+(\d+)/.exec(name)!.map(Number);
    return Array.from({ length: length! / 4096 }, (_, chunk) => offset! / 4096 + chunk);
  });
  assertEquals(chunks.sort((a, b) => a - b), [0, 1, 2, 3]);
  await cache.close();
});

Deno.test("a write waits for no remote, and a flush completes what it left", async () => {
  const { cache, gate, remote } = gated();
  const expected = pattern(64 * KIB, 1);
  gate.hold();
  for (const [offset, length] of [[100, 50], [4000, 5000], [10_000, 1], [60_000, 5536]] as const) {
    expected.set(pattern(length, offset), offset);
    assertEquals(cache.writeAt(pattern(length, offset), offset), undefined);
    assertEquals(cache.readAt(new Uint8Array(length), offset), undefined, "It is there");
  }
  assertEquals(gate.log, []);
  let flushed = false;
  const flush = cache.flush().then(() => flushed = true);
  await settle();
  assertEquals(flushed, false, "Not before the rest of the chunks is there");
  gate.open();
  await flush;
  assertBytes(await readBack(cache, 0, 64 * KIB), expected, "The cache");
  await cache.sync();
  assertBytes(remote.kept.subarray(0, 12 * KIB), expected.subarray(0, 12 * KIB), "The remote");
  await cache.close();
});

Deno.test("writes that make up a chunk together fetch nothing", async () => {
  const { cache, gate, remote } = gated();
  for (let at = 64 * KIB - 1000; at > -1000; at -= 1000) {
    const from = Math.max(at, 0);
    await cache.writeAt(pattern(at + 1000 - from, at + 2000), from);
  }
  await cache.sync();
  assertEquals(gate.log, ["write 0+65536", "flush 0+0"]);
  assertBytes(remote.kept, await readBack(cache, 0, 64 * KIB), "The remote");
  await cache.close();
});

Deno.test("very many small writes to absent chunks are completed meanwhile", async () => {
  const size = 1024 * 4 * KIB;
  const { cache, gate } = gated(size);
  for (let at = 0; at < size; at += 1000) await cache.writeAt(new Uint8Array([1]), at);
  await settle();
  assert(gate.log.length > 0, "Some were fetched");
  assert(cache.region.partial.rangeCount < 2048, `${cache.region.partial.rangeCount} are left`);
  await cache.close();
});

Deno.test("closing ends what waits for a remote that does not answer", async () => {
  const size = MIB;
  const never = Promise.withResolvers<void>();
  const remote: Backend = {
    ...{ size, blockSize: 1, durable: true, readOnly: false },
    readAt: () => never.promise,
    writeAt: () => never.promise,
    flush: () => never.promise,
    close: () => never.reject(new ClosedError("Closed")),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  const cache = new CacheStage({ remote, local: openMemory({ size }), chunkSize: 4 * KIB });
  cache.pull();
  await cache.writeAt(new Uint8Array(64 * KIB), MIB - 64 * KIB);
  const waits = [readBack(cache, 0, 10), cache.sync()].map((wait) =>
    assertRejects(() => wait, ClosedError)
  );
  await settle();
  await cache.close();
  await Promise.all(waits);
});

Deno.test("a read-only remote makes a read-only cache", async () => {
  const memory = openMemory({ size: MIB });
  const remote = openSharedMemory({ ...memory.share(), readOnly: true });
  const cache = new CacheStage({ remote, local: openMemory({ size: MIB }), chunkSize: 4 * KIB });
  assertEquals(cache.readOnly, true);
  assertThrows(() => cache.writeAt(new Uint8Array(1), 0), ReadOnlyError);
  assertThrows(() => cache.discard!(0, 4096), ReadOnlyError);
  await readBack(cache, 0, 10);
  await cache.close();
  memory.close();
});

Deno.test("extents are those of the remote where nothing is local", async () => {
  const remote = openMemory({ size: 4 * MIB }), local = openMemory({ size: 4 * MIB });
  remote.writeAt(pattern(10, 1), 2 * MIB);
  const cache = new CacheStage({ remote, local, chunkSize: 64 * KIB });
  await cache.writeAt(pattern(64 * KIB, 2), 0);
  await cache.writeAt(pattern(10, 3), 3 * MIB);
  const holes = (await assertExtents(cache, 0, 4 * MIB)).filter(({ hole }) => hole);
  assertEquals(holes.map(({ offset, length }) => [offset / 64 / KIB, length / 64 / KIB]), [
    [1, 31],
    [33, 15],
    [49, 15],
  ]);
  await cache.close();
});

Deno.test("parts that do not fit are refused", () => {
  const memory = (size: number) => openMemory({ size });
  const make = (local: Backend, chunkSize: number) => cached(memory(MIB), local, chunkSize);
  assertThrows(() => make(memory(MIB - 1), 4096), UsageError, "1048575 bytes");
  assertThrows(() => make(memory(MIB), 5000), UsageError);
  const readOnly = openSharedMemory({ ...memory(MIB).share(), readOnly: true });
  assertThrows(() => make(readOnly, 4096), UsageError, "read-only");
});

Deno.test("a cache of 1 TiB opens in a moment, and takes little memory", async () => {
  const began = performance.now();
  const cache = cached(openMemory({ size: TIB }), openMemory({ size: TIB }), 64 * KIB);
  assert(performance.now() - began < 500, "It opens in a moment");
  const puller = cache.pull({ ranges: [{ offset: TIB - 10, length: 10 }] });
  assertEquals(await readBack(cache, TIB / 2, 10), new Uint8Array(10));
  puller.stop();
  await cache.close();
});
