/**
 * The rules of the cache, whatever happens in which order: several clients, each with bytes of its
 * own but in shared chunks, while chunks are pulled and pushed and the remote fails now and then.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Bitmap } from "../lib/backend/bitmap.ts";
import { ConnectionError } from "../lib/backend/errors.ts";
import { CacheStage, type Durability } from "../lib/chunk/cache.ts";
import type { CacheJournal } from "../lib/chunk/cache_journal.ts";
import { PartialChunks } from "../lib/chunk/partial_chunks.ts";
import { assertBytes, readBack } from "./backend_model.ts";
import { ScheduledBackend } from "./scheduled_backend.ts";

const CHUNK = 4096, CHUNKS = 5;
const SIZE = CHUNK * (CHUNKS - 1) + 1000;
const PIECE = 1024;

/** Bytes of a client: nobody else reads or changes them. */
type Area = readonly [from: number, to: number];
const CLIENTS: readonly (readonly Area[])[] = [
  [[0, 2 * CHUNK]],
  [[2 * CHUNK, 2 * CHUNK + 2 * PIECE], [3 * CHUNK, 3 * CHUNK + PIECE], [4 * CHUNK, SIZE]],
  [[2 * CHUNK + 2 * PIECE, 3 * CHUNK], [3 * CHUNK + PIECE, 4 * CHUNK]],
];

type Kind = "read" | "write" | "fill" | "zero" | "discard" | "flush" | "sync";
interface Operation {
  kind: Kind;
  area: number;
  from: number;
  length: number;
}

const operations = fc.array(
  fc.record({
    kind: fc.constantFrom<Kind>(
      ...["read", "write", "write", "write", "fill", "zero", "discard", "flush", "sync"] as const,
    ),
    area: fc.nat(2),
    from: fc.nat(7),
    length: fc.integer({ min: 1, max: 8 }),
  }),
  { maxLength: 8 },
);

interface Pull {
  from: number;
  to: number;
}
const pulls = fc.array(
  fc.tuple(fc.nat(CHUNKS - 1), fc.integer({ min: 1, max: CHUNKS }))
    .map(([from, count]): Pull => ({ from, to: Math.min(from + count, CHUNKS) })),
  { maxLength: 4 },
);

/** The cache, its backends, and what watches over the rules. */
class Watched {
  readonly remote: ScheduledBackend;
  readonly local: ScheduledBackend;
  readonly cache: CacheStage;
  /** How often each chunk was read from the remote. */
  readonly reads: number[] = new Array(CHUNKS).fill(0);
  /** Whether the remote may fail. */
  flaky = true;
  /** Chunks whose local content was written. */
  readonly #stored = new Set<number>();
  /** What a crash would show as suspect or dirty, so that its content may be changed. */
  readonly #marked = new Set<number>();
  /** Whether the journal keeps chunks that are there in part. */
  readonly #keepsPartial: boolean;
  #failures: Iterator<number>;

  constructor(
    step: (name: string) => Promise<unknown>,
    failures: Iterator<number>,
    durability: Durability,
    atOnce: boolean,
    keepsPartial: boolean,
  ) {
    this.#keepsPartial = keepsPartial;
    this.#failures = failures;
    const onDone = () => this.check();
    this.remote = new ScheduledBackend({
      size: SIZE,
      step: (name) => step(`remote ${name}`),
      fails: () => this.flaky && this.#failures.next().value === 0,
      onDone,
      onRead: (from, to) => {
        for (let at = from; at < to; at += CHUNK) this.reads[Math.floor(at / CHUNK)]!++;
      },
    });
    this.local = new ScheduledBackend({
      size: SIZE,
      step: atOnce ? () => Promise.resolve() : (name) => step(`local ${name}`),
      fails: () => false,
      onDone,
      onChange: (from, to) => this.#changing(from, to),
    });
    this.remote.bytes.forEach((_, at) => this.remote.bytes[at] = this.remote.kept[at] = at % 251);
    this.cache = new CacheStage({
      ...{ remote: this.remote, local: this.local, chunkSize: CHUNK, durability },
      journal: this.#journal(step),
      push: {
        interval: 0,
        flushBytes: 1,
        retryPause: 0,
        log: () => {},
        onPushed: (from, to) => this.#unmark(from, to),
      },
      onLocal: (from, to) => this.#becameLocal(from, to),
    });
  }

  /** A clean chunk has the bytes that the remote would have without power. */
  check(): void {
    const { local, dirty, count } = this.cache.region.states;
    for (let chunk = 0; chunk < count; chunk++) {
      assert(local.has(chunk) || !dirty.has(chunk), `Chunk ${chunk} is absent and dirty`);
      if (!local.has(chunk) || dirty.has(chunk)) continue;
      const from = chunk * CHUNK, to = Math.min(from + CHUNK, SIZE);
      const [ours, theirs] = [this.local.bytes, this.remote.kept];
      assertBytes(ours.subarray(from, to), theirs.subarray(from, to), `Clean chunk ${chunk}`);
    }
  }

  /** Local content of a clean chunk is changed only after the journal knows of it. */
  #changing(from: number, to: number): void {
    const { local, dirty } = this.cache.region.states;
    for (let chunk = Math.floor(from / CHUNK); chunk * CHUNK < to; chunk++) {
      this.#stored.add(chunk);
      if (!local.has(chunk)) continue;
      assert(dirty.has(chunk), `Chunk ${chunk} is changed while it is clean`);
      assert(this.#marked.has(chunk), `Chunk ${chunk} is changed but not marked`);
    }
  }

  #journal(step: (name: string) => Promise<unknown>): CacheJournal {
    return {
      local: new Bitmap(CHUNKS),
      dirty: new Bitmap(CHUNKS),
      partial: new PartialChunks(),
      keepsPartial: this.#keepsPartial,
      durable: true,
      found: { closedInOrder: true, suspect: 0, dirty: 0 },
      intend: (from, to) => {
        const mark = () => {
          for (let chunk = from; chunk < to; chunk++) this.#marked.add(chunk);
        };
        let known = true;
        for (let chunk = from; chunk < to; chunk++) known &&= this.#marked.has(chunk);
        if (!known) return step(`intend ${from}-${to}`).then(mark);
      },
      commit: async () => {
        await this.local.flush();
        await step("commit");
        return this.#keepsPartial;
      },
      close: () => Promise.resolve(),
    };
  }

  #unmark(from: number, to: number): void {
    for (let chunk = from; chunk < to; chunk++) {
      if (!this.cache.region.states.dirty.has(chunk)) this.#marked.delete(chunk);
    }
  }

  #becameLocal(from: number, to: number): void {
    for (let chunk = from; chunk < to; chunk++) {
      assert(this.#stored.has(chunk), `Chunk ${chunk} is local before its content is there`);
      if (this.cache.region.states.dirty.has(chunk)) this.#marked.add(chunk);
    }
  }
}

/** One client after another operation: it knows what its bytes are. */
async function runClient(
  watched: Watched,
  areas: readonly Area[],
  list: readonly Operation[],
  expected: Uint8Array,
  id: number,
): Promise<void> {
  const { cache, remote } = watched;
  for (const [index, operation] of list.entries()) {
    const [begin, behind] = areas[operation.area % areas.length]!;
    const from = Math.min(begin + operation.from * PIECE, behind - 1);
    const to = Math.min(from + operation.length * PIECE, behind);
    const seed = 1 + index * CLIENTS.length + id;
    switch (operation.kind) {
      case "read": {
        const found = await unlessLost(readBack(cache, from, to - from));
        if (found) assertBytes(found, expected.subarray(from, to), `Bytes ${from} to ${to}`);
        break;
      }
      case "write":
        expected.fill(seed, from, to);
        await cache.writeAt(expected.slice(from, to), from);
        break;
      case "fill":
        expected.fill(seed, begin, behind);
        await cache.writeAt(expected.slice(begin, behind), begin);
        break;
      case "zero":
        expected.fill(0, from, to);
        await cache.zero!(from, to - from);
        break;
      case "discard": {
        await cache.discard!(from, to - from);
        const kept = await unlessLost(readBack(cache, from, to - from));
        if (kept === undefined) expected.set(await reread(watched, from, to), from);
        else expected.set(kept, from);
        break;
      }
      case "flush":
        await unlessLost(cache.flush());
        break;
      case "sync":
        if (await unlessLost(cache.sync().then(() => true))) {
          for (const [start, end] of areas) {
            const kept = remote.kept.subarray(start, end);
            assertBytes(kept, expected.subarray(start, end), "What a sync left at the remote");
          }
        }
    }
  }
}

async function unlessLost<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (!(error instanceof ConnectionError)) throw error;
  }
}

async function reread(watched: Watched, from: number, to: number): Promise<Uint8Array> {
  for (;;) {
    const found = await unlessLost(readBack(watched.cache, from, to - from));
    if (found !== undefined) return found;
  }
}

async function runPulls(watched: Watched, list: readonly Pull[]): Promise<void> {
  for (const { from, to } of list) await unlessLost(watched.cache.fetcher.bring(from, to));
}

const clients = fc.tuple(operations, operations, operations);
const failures = fc.infiniteStream(fc.nat(25));
const durabilities = fc.constantFrom<Durability>("local", "remote");

Deno.test("the rules hold in whatever order things happen", async () => {
  const property = fc.asyncProperty(
    fc.scheduler(),
    clients,
    pulls,
    failures,
    durabilities,
    fc.boolean(),
    fc.boolean(),
    async (scheduler, lists, pulls, failures, durability, atOnce, keepsPartial) => {
      const step = (name: string) => scheduler.schedule(Promise.resolve(), name);
      const failing = failures[Symbol.iterator]();
      const watched = new Watched(step, failing, durability, atOnce, keepsPartial);
      const expected = watched.remote.bytes.slice();
      const all = [
        runPulls(watched, pulls),
        ...CLIENTS.map((areas, id) => runClient(watched, areas, lists[id]!, expected, id)),
      ];
      await scheduler.waitFor(Promise.all(all));
      watched.flaky = false;
      await scheduler.waitFor(watched.cache.sync());
      assertBytes(watched.remote.kept, expected, "The remote in the end");
      assertEquals(watched.cache.region.states.dirtyCount, 0);
      await scheduler.waitFor(runPulls(watched, [{ from: 0, to: CHUNKS }]));
      assertBytes(watched.local.bytes, expected, "The cache in the end");
      assert(watched.cache.region.states.complete);
      assertEquals(watched.cache.region.lock.size, 0);
      await scheduler.waitFor(watched.cache.close());
    },
  );
  await fc.assert(property, { numRuns: 300 });
});

Deno.test("each chunk is fetched once, however many ask for it", async () => {
  const property = fc.asyncProperty(
    fc.scheduler(),
    clients,
    pulls,
    async (scheduler, lists, pulls) => {
      const step = (name: string) => scheduler.schedule(Promise.resolve(), name);
      const watched = new Watched(
        step,
        fc.sample(fc.constant(1), 1)[Symbol.iterator](),
        "local",
        false,
        false,
      );
      watched.flaky = false;
      const expected = watched.remote.bytes.slice();
      const all = CLIENTS.map((areas, id) => runClient(watched, areas, lists[id]!, expected, id));
      await scheduler.waitFor(Promise.all([runPulls(watched, pulls), ...all]));
      assert(watched.reads.every((count) => count <= 1), `Reads of each chunk: ${watched.reads}`);
      await scheduler.waitFor(watched.cache.close());
    },
  );
  await fc.assert(property, { numRuns: 150 });
});
