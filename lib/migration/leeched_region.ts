/**
 * The local copy of a region that is still elsewhere: chunks come from the source, go out of date as
 * they are written there, and are the copy's own from the handover on.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import { CacheStage } from "../chunk/cache.ts";
import { digestOf } from "../chunk/digests.ts";
import type { ByteRange, RangeList } from "../backend/range_list.ts";
import { settleAll } from "../backend/settle.ts";
import { Puller, type PullOptions } from "../chunk/pull.ts";
import type { ChunkRun } from "../chunk/pull_order.ts";

/** How a {@linkcode LeechedRegion} is made; as of a cache, which it is. */
export type LeechedRegionOptions = Omit<
  ConstructorParameters<typeof CacheStage>[0],
  "owned" | "push" | "durability" | "readOnly"
>;

/** What became of chunks that were compared by their digests. */
export interface Compared {
  /** Chunks that are equal. */
  equal: number;
  /** Chunks that are not. */
  different: number;
  /** Chunks that the copy does not have, or has changed itself. */
  left: number;
}

/** Requests at a time, however small they are. */
const REQUESTS_MOST = 256;

/** See the module. Before the handover nobody but the migration may reach it. */
export class LeechedRegion extends CacheStage {
  /** Until it is written down that the region is here, once that began. */
  #owning: Promise<void> | undefined;

  /** Nothing is pulled yet. */
  constructor(options: LeechedRegionOptions) {
    super({ ...options, owned: true });
  }

  /** Bytes of chunks that are still to come. */
  get absentBytes(): number {
    return this.size - this.region.localBytes;
  }

  /** Pulls what is absent, these ranges first, until all is local or it is stopped. */
  pullFirst(ranges: Iterable<ByteRange>, options: PullOptions = {}): Puller {
    return this.pull({ ...options, ranges });
  }

  /** Brings what of these ranges is absent, with about so many bytes in flight. */
  async bring(ranges: readonly ByteRange[], bytes: number): Promise<void> {
    if (ranges.length === 0) return;
    const { requestChunks } = this.region;
    const runs = ranges.flatMap(({ offset, length }) => {
      const from = this.region.chunkOf(offset), to = this.region.chunkBehind(offset + length);
      const count = Math.ceil((to - from) / requestChunks);
      return Array.from({ length: count }, (_, index): ChunkRun => {
        const first = from + index * requestChunks;
        return { from: first, to: Math.min(first + requestChunks, to) };
      });
    });
    const next = runs.values();
    const bringNext = async () => {
      for (const { from, to } of next) await this.fetcher.bring(from, to, { aside: true });
    };
    const all = ranges.reduce((sum, { length }) => sum + length, 0);
    const requests = Math.min(Math.ceil(runs.length * bytes / all), runs.length, REQUESTS_MOST);
    await settleAll(Array.from({ length: requests }, bringNext));
  }

  /** What was written at the source is out of date here; answers how many bytes of it were here. */
  async forget(ranges: RangeList): Promise<number> {
    const runs: ChunkRun[] = [];
    for (let index = 0; index < ranges.count; index++) {
      const from = this.region.chunkOf(ranges.start(index));
      runs.push({ from, to: this.region.chunkBehind(ranges.end(index)) });
    }
    return await this.fetcher.forget(runs);
  }

  /**
   * Takes a content that came from the source by itself: those chunks of it that are whole. Where others
   * are being received there, they stay absent.
   */
  async store(offset: number, content: Uint8Array): Promise<void> {
    const { region } = this;
    const end = offset + content.length;
    const from = region.chunkBehind(offset);
    const to = end === region.size ? region.states.count : region.chunkOf(end);
    if (from >= to) return;
    await region.lock.exclusive(from, to, async () => {
      if (this.fetcher.placed(from, to) !== undefined) return;
      const start = region.offsetOf(from);
      await region.local.writeAt(
        content.subarray(start - offset, region.offsetOf(to) - offset),
        start,
      );
      for (let chunk = from; chunk < to; chunk++) {
        if (!region.states.local.has(chunk)) region.states.arrived(chunk);
      }
      region.becameLocal(from, to);
    });
  }

  /**
   * Takes those chunks `[from, from + n)` over that are in the copy from an earlier time, and equal to
   * the source by the digests of it; of those that are local already, forgets what differs.
   */
  async adopt(from: number, digests: readonly Uint8Array[]): Promise<Compared> {
    const { region } = this;
    this.fetcher.endPlacing();
    const compared: Compared = { equal: 0, different: 0, left: 0 };
    for (const [index, digest] of digests.entries()) {
      const chunk = from + index;
      await this.#placed(chunk);
      await region.lock.exclusive(chunk, chunk + 1, async () => {
        const equal = await this.#isEqual(chunk, digest);
        const isLocal = region.states.local.has(chunk);
        if (equal && !isLocal) {
          region.states.arrived(chunk);
          region.becameLocal(chunk, chunk + 1);
        } else if (!equal && isLocal) region.states.dropped(chunk);
        compared[equal ? "equal" : "different"]++;
      });
    }
    return compared;
  }

  /** Compares chunks of the copy, as far as it has not changed them itself, with those digests. */
  async compare(from: number, digests: readonly Uint8Array[]): Promise<Compared> {
    const { states } = this.region;
    const compared: Compared = { equal: 0, different: 0, left: 0 };
    for (const [index, digest] of digests.entries()) {
      const chunk = from + index;
      const isOurs = () => !states.local.has(chunk) || states.dirty.has(chunk);
      const equal = !isOurs() && await this.#isEqual(chunk, digest);
      // A write that began meanwhile has made it dirty before it changed anything.
      if (isOurs()) compared.left++;
      else compared[equal ? "equal" : "different"]++;
    }
    return compared;
  }

  /** From now on this is the region: what it holds is written down, and outlives the process. */
  own(record: () => Promise<void>): Promise<void> {
    // From now on others write to it.
    this.fetcher.endPlacing();
    const own = async () => {
      await this.region.commit();
      await record();
    };
    this.#owning = own();
    return this.#owning;
  }

  /** Has somebody told how many ms each access took that had to wait for the source. */
  set onFaulted(told: (milliseconds: number) => void) {
    this.fetcher.listeners.add({ onFaulted: (since) => told(performance.now() - since) });
  }

  /**
   * Once everything is local: nothing of it depends on the source any more, also after a crash. With
   * `asItIs` also where something is missing, which stays as it is here.
   */
  async keepAll({ asItIs = false } = {}): Promise<void> {
    this.fetcher.endPlacing();
    const { states, partial } = this.region;
    if (!states.complete && !asItIs) {
      throw new UsageError("Cannot keep a region of which chunks are missing");
    }
    for (let chunk = 0; chunk < states.count; chunk++) {
      partial.delete(chunk);
      if (!states.local.has(chunk)) states.arrived(chunk);
      states.written(chunk);
    }
    await this.region.commit();
  }

  /** As of a cache; and no sooner than it is written down that the region is here. */
  override async flush(): Promise<void> {
    await this.#owning;
    await super.flush();
  }

  /** What is compared is to stay as it is meanwhile. */
  async #placed(chunk: number): Promise<void> {
    for (;;) {
      const wait = this.fetcher.placed(chunk, chunk + 1);
      if (wait === undefined) return;
      await wait;
    }
  }

  async #isEqual(chunk: number, digest: Uint8Array): Promise<boolean> {
    const { local, buffers } = this.region;
    const offset = this.region.offsetOf(chunk);
    const content = buffers.take(this.region.offsetOf(chunk + 1) - offset);
    await local.readAt(content, offset);
    const own = digestOf(content);
    buffers.give(content);
    return own.every((byte, index) => byte === digest[index]);
  }
}
