/** Pulling in the background: order, what overtakes it, how much at a time, and failures. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { openLibc } from "../ffi/libc.ts";
import { ClosedError, ConnectionError, IntegrityError, UsageError } from "../lib/backend/errors.ts";
import { openMemory } from "../lib/backend/memory.ts";
import { CacheStage } from "../lib/chunk/cache.ts";
import type { PullOptions, PullProgress } from "../lib/chunk/pull.ts";
import { assertBytes, pattern, readBack } from "./backend_model.ts";
import { Gate, settle } from "./gate.ts";
import { ScheduledBackend } from "./scheduled_backend.ts";

openLibc();

const KIB = 1 << 10, MIB = 1 << 20;

/** A cache of memory over a region that fails as it is told, and a gate before that. */
function far(size: number, chunkSize: number, failure?: (name: string) => Error | undefined) {
  const gate = new Gate();
  const remote = new ScheduledBackend({
    size,
    step: async (name) => {
      await gate.step(name);
      const error = name.endsWith("answered") ? undefined : failure?.(name);
      if (error !== undefined) throw error;
    },
    fails: () => false,
  });
  remote.bytes.set(pattern(size, 1));
  const cache = new CacheStage({
    ...{ remote, local: openMemory({ size }), chunkSize },
    push: { interval: 0 },
  });
  const lines: string[] = [];
  const pull = (options: PullOptions = {}) =>
    cache.pull({ retryPause: 1, log: (line) => lines.push(line), ...options });
  const reads = () => gate.log.map((name) => name.slice("read ".length));
  return { gate, remote, cache, pull, reads, lines };
}

Deno.test("pulling brings all chunks, in large requests and in order", async () => {
  const size = 3 * MIB + 100_000;
  const { cache, pull, reads } = far(size, 64 * KIB);
  const progress: PullProgress[] = [];
  await pull({ onProgress: (now) => progress.push(now) }).complete();
  assertEquals(reads(), [
    `0+${MIB}`,
    `${MIB}+${MIB}`,
    `${2 * MIB}+${MIB}`,
    `${3 * MIB}+100000`,
  ]);
  assert(cache.region.states.complete);
  assertBytes(await readBack(cache.region.local, 0, size), pattern(size, 1), "The cache");
  assertEquals(progress.at(-1)!.localBytes, size);
  assertEquals(progress.at(-1)!.pulledBytes, size);
  await cache.close();
});

Deno.test("large chunks come one at a time each", async () => {
  const { cache, pull, reads } = far(5 * MIB, 2 * MIB);
  await pull().complete();
  assertEquals(reads(), [`0+${2 * MIB}`, `${2 * MIB}+${2 * MIB}`, `${4 * MIB}+${MIB}`]);
  await cache.close();
});

Deno.test("priorities and ranges say what comes first", async () => {
  const orders: [PullOptions, string[]][] = [
    [{ priority: (offset) => offset }, ["12288+4096", "8192+4096", "4096+4096", "0+4096"]],
    [{ ranges: [{ offset: 9000, length: 10 }] }, ["8192+4096", "0+8192", "12288+4096"]],
  ];
  for (const [options, expected] of orders) {
    const { cache, pull, reads } = far(16384, 4096);
    await pull({ workers: 1, ...options }).complete();
    assertEquals(reads(), expected);
    await cache.close();
  }
});

Deno.test("what is expected comes first, and the rest when others are waited for", async () => {
  const expected = [{ offset: 8192, length: 4096 }, { offset: 40960, length: 1 }];
  const order = ["8192+4096", "40960+4096"];
  const { cache, pull, reads } = far(16 * 4096, 4096);
  const ranges = [{ offset: 0, length: 4096 }];
  const puller = pull({ workers: 1, expected, ranges, restPause: 2 ** 31 - 1 });
  await settle();
  assertEquals([reads(), puller.isHolding], [order, true]);
  for (const chunk of [2, 3, 5, 7, 9]) {
    assertEquals(puller.isHolding, true);
    await readBack(cache, chunk * 4096, 1);
  }
  await readBack(cache, 11 * 4096, 1);
  const strays = ["12288+4096", "20480+4096", "28672+4096", "36864+4096", "45056+4096"];
  await settle();
  assertEquals(puller.isHolding, false);
  await puller.complete();
  const near = "49152+16384";
  assertEquals(reads().slice(0, 9), [...order, ...strays, near, "0+4096"]);
  await cache.close();
});

Deno.test("the rest follows what is expected after a moment, or when somebody waits for all", async () => {
  for (const restPause of [1, 2 ** 31 - 1]) {
    const done = Promise.withResolvers<void>();
    const { cache, pull, reads } = far(4 * 4096, 4096);
    const onProgress = ({ localBytes, size }: PullProgress) =>
      localBytes === size && done.resolve();
    const expected = [{ offset: 8192, length: 4096 }];
    const puller = pull({ workers: 1, expected, restPause, onProgress });
    if (restPause > 1) {
      await settle();
      assertEquals(puller.isHolding, true);
      await puller.complete();
    }
    await done.promise;
    assertEquals(reads(), ["8192+4096", "0+8192", "12288+4096"]);
    await cache.close();
  }
});

Deno.test("what is expected is tried again before the rest", async () => {
  let failures = 2;
  const away = () => failures-- > 0 ? new ConnectionError("Gone") : undefined;
  const { cache, pull, reads } = far(8 * 4096, 4096, away);
  const expected = [{ offset: 8192, length: 1 }, { offset: 24576, length: 1 }];
  const puller = pull({ workers: 2, expected, restPause: 2 ** 31 - 1 });
  await settle();
  assertEquals(reads().toSorted(), ["24576+4096", "24576+4096", "8192+4096", "8192+4096"]);
  assertEquals(puller.isHolding, true);
  await puller.complete();
  await cache.close();
});

Deno.test("a read that faults overtakes everything, and what is behind it comes next", async () => {
  const { cache, pull, gate, reads } = far(8 * MIB, MIB);
  gate.hold();
  const puller = pull({ workers: 1 });
  await settle();
  assertEquals(reads(), [`0+${MIB}`]);
  const read = readBack(cache, 5 * MIB + 1000, 10);
  await settle();
  assertEquals(gate.waiting.length, 2, "The read does not wait for the pull");
  gate.pass(/5242880/);
  assertBytes(await read, pattern(8 * MIB, 1).subarray(5 * MIB + 1000, 5 * MIB + 1010), "It");
  gate.open();
  await puller.complete();
  const order = [0, 5, 6, 7, 1, 2, 3, 4];
  assertEquals(reads(), order.map((chunk) => `${chunk * MIB}+${MIB}`));
  await cache.close();
});

Deno.test("what is pulled goes to the cache aside, what somebody waits for does not", async () => {
  const size = 4 * MIB;
  const { remote, gate } = far(size, 64 * KIB);
  const local = openMemory({ size });
  const calls: string[] = [];
  const writeAt = local.writeAt.bind(local);
  local.writeAt = (bytes, offset) => {
    calls.push(`${offset}+${bytes.length}`);
    return writeAt(bytes, offset);
  };
  const writeAside = async (bytes: Uint8Array, offset: number) => {
    calls.push(`${offset}+${bytes.length} aside`);
    await writeAt(bytes, offset);
  };
  Object.assign(local, { writeAside });
  const cache = new CacheStage({ remote, local, chunkSize: 64 * KIB, push: { interval: 0 } });
  gate.hold(/^read 0\+/);
  const puller = cache.pull({ workers: 1 });
  await settle();
  await cache.readAt(new Uint8Array(10), 3 * MIB);
  gate.open();
  await puller.complete();
  assertEquals(
    calls.toSorted(),
    [
      `0+${MIB} aside`,
      `${MIB}+${MIB} aside`,
      `${2 * MIB}+${MIB} aside`,
      `${3 * MIB + 64 * KIB}+${MIB - 64 * KIB} aside`,
      `${3 * MIB}+${64 * KIB}`,
    ].toSorted(),
  );
  assertBytes(await readBack(local, 0, size), pattern(size, 1), "The cache");
  assertEquals(gate.log.length, 5);
  await cache.close();
});

Deno.test("so many requests as workers are in flight, small ones too", async () => {
  for (const chunkSize of [4 * KIB, MIB]) {
    const { cache, pull, gate } = far(8 * MIB, chunkSize);
    for (let at = 0; at < 8 * MIB; at += 8 * KIB) {
      if (chunkSize < MIB) await cache.writeAt(new Uint8Array(chunkSize), at);
    }
    gate.hold();
    const puller = pull({ workers: 3 });
    await settle();
    assertEquals(gate.waiting.length, 3);
    gate.open();
    await puller.complete();
    assertEquals(gate.most, 3);
    await cache.close();
  }
});

Deno.test("a paused pull begins nothing", async () => {
  const { cache, pull, gate, reads } = far(8 * MIB, MIB);
  gate.hold();
  const puller = pull({ workers: 2 });
  await settle();
  puller.pause();
  gate.open();
  await settle();
  assertEquals(reads().length, 2);
  puller.resume();
  await puller.complete();
  assertEquals(reads().length, 8);
  await cache.close();
});

Deno.test("a limited rate is not exceeded, and reads are not subject to it", async () => {
  const { cache, pull, reads } = far(8 * MIB, MIB);
  const began = performance.now();
  const puller = pull({ rateLimit: 20 * MIB });
  await readBack(cache, 6 * MIB, 1);
  assert(reads().length <= 3, "The read was not held up");
  await puller.complete();
  // Six more requests were each due 50 ms after the one before.
  assert(performance.now() - began > 290, `All came in ${performance.now() - began} ms`);
  await cache.close();
});

Deno.test("where the remote is away for a while, pulling goes on afterwards", async () => {
  let failures = 4;
  const size = 4 * MIB;
  const away = () => failures-- > 0 ? new ConnectionError("Gone") : undefined;
  const { cache, pull, reads, lines } = far(size, 64 * KIB, away);
  await pull({ workers: 2 }).complete();
  assert(reads().every((range) => range.endsWith(`+${MIB}`)), "No chunk is at fault");
  assertBytes(await readBack(cache.region.local, 0, size), pattern(size, 1), "The cache");
  assertEquals(lines, ["Cannot pull, trying on: Gone", "Pulling from the remote works again"]);
  await cache.close();
});

Deno.test("a chunk that cannot be had keeps no other one away, and is told of", async () => {
  const bad = 5 * 4096;
  let broken = true;
  const { cache, pull } = far(64 * 4096, 4096, (name) => {
    const [, offset, length] = /(\d+)\+(\d+)/.exec(name)!.map(Number);
    const hit = broken && offset! <= bad && bad < offset! + length!;
    return hit ? new IntegrityError("Rotten") : undefined;
  });
  const puller = pull();
  await assertRejects(() => puller.complete(), IntegrityError, "Rotten");
  assertEquals(cache.region.states.localCount, 63);
  await assertRejects(() => readBack(cache, bad, 1), IntegrityError);
  assertBytes(
    await readBack(cache, bad + 4096, 4096),
    pattern(64 * 4096, 1).subarray(bad + 4096, bad + 8192),
    "Its neighbour",
  );
  broken = false;
  await puller.complete();
  assertEquals(cache.region.states.localCount, 64);
  await cache.close();
});

Deno.test("stopping begins nothing more, and tells those who wait", async () => {
  const { cache, pull, gate, reads } = far(8 * MIB, MIB);
  gate.hold();
  const puller = pull({ workers: 2 });
  await settle();
  const complete = puller.complete();
  puller.stop();
  await assertRejects(() => complete, ClosedError);
  await assertRejects(() => puller.complete(), ClosedError);
  gate.open();
  await puller.idle();
  assertEquals(reads().length, 2);
  await cache.close();
});

Deno.test("what was written while it was on its way stays", async () => {
  const { cache, pull, gate } = far(2 * MIB, 64 * KIB);
  gate.hold();
  const puller = pull();
  await settle();
  const expected = pattern(2 * MIB, 1);
  const writes = [[0, 64 * KIB], [70_000, 10], [200_000, 300_000], [2 * MIB - 5, 5]] as const;
  for (const [offset, length] of writes) {
    expected.set(pattern(length, offset + 7), offset);
    assertEquals(cache.writeAt(pattern(length, offset + 7), offset), undefined, "At once");
  }
  gate.open();
  await puller.complete();
  assertBytes(await readBack(cache, 0, 2 * MIB), expected, "The cache");
  await cache.close();
});

Deno.test("options that make no sense are refused", async () => {
  const { cache, pull } = far(MIB, 4096);
  assertThrows(() => pull({ workers: 0 }), UsageError);
  assertThrows(() => pull({ rateLimit: 0 }), UsageError);
  assertThrows(() => pull({ ranges: [{ offset: MIB, length: 1 }] }), RangeError);
  await cache.close();
});
