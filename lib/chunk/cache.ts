/**
 * A stage that keeps the chunks of a remote region in a local backend: what was read or written
 * once is at hand, and what is written goes to the remote later.
 *
 * What holds at any moment, whatever goes on side by side:
 *
 * 1. A local write beats an older remote chunk. A chunk that is fetched is put into the cache while
 *    nobody else changes it there, and only where nothing was written since.
 * 2. Two readers of one absent chunk cause one fetch.
 * 3. A write waits neither for the remote nor for a fetch. What it leaves of an absent chunk is
 *    fetched later: before the chunk is pushed or read as a whole, or promised to be kept where the
 *    journal cannot keep a part. Only when very many chunks are in that state, or more is dirty
 *    than may be, do writes wait; and for a chunk that is being received right where it belongs, as
 *    the first copy of a migration is.
 * 4. A write while its chunk is pushed has it pushed again. A chunk is copied for that while nobody
 *    changes it; a write that begins later marks it, and it stays dirty.
 * 5. A dirty chunk becomes clean only when the remote has flushed a copy of its last version.
 *    Whatever fails leaves it dirty.
 * 6. A clean chunk is changed only after the journal has marked that (see `journal.ts`), so that no
 *    crash shows a torn one as clean.
 *
 * Reading takes no lock: a chunk that became local stays it, and who reads what is being written
 * orders the two himself, as with any backend.
 *
 * @module
 */
import {
  type Awaitable,
  type Backend,
  checkRange,
  checkWritable,
  type Extent,
  extentsOf,
  type Traffic,
  type ZeroOptions,
} from "../backend/backend.ts";
import { UnsupportedError } from "../backend/errors.ts";
import { appendExtent } from "../backend/extents.ts";
import { CachedRegion, type CachedRegionOptions } from "./cached_region.ts";
import { ChunkFetcher } from "./fetch.ts";
import { Puller, type PullOptions } from "./pull.ts";
import { Keeper } from "./keep.ts";
import { type DirtySink, Pusher, type PushOptions } from "./push.ts";

/** Where a flush makes durable what was written: in the cache, or at the remote. */
export type Durability = "local" | "remote";

/** What a {@linkcode CacheStage} is made of, and how it works. */
export interface CacheOptions extends CachedRegionOptions {
  /** What {@linkcode CacheStage.flush} promises; default `local`. */
  durability?: Durability | undefined;
  /** Whether writes are refused; they are, too, where the remote refuses them and owns the region. */
  readOnly?: boolean | undefined;
  /** Whether the cache owns the region: what is written stays here, and is never pushed. */
  owned?: boolean | undefined;
  /** How dirty chunks go to the remote. */
  push?: PushOptions | undefined;
  /** Told of each read, as the chunks `[from, to)` that it is in. */
  onRead?: ((from: number, to: number) => void) | undefined;
}

/** So many separate ranges of bytes may be written to absent chunks before those are completed. */
const PARTIAL_RANGES = { COMPLETE: 1024, WAIT: 16384 } as const;

/**
 * See the module. Both backends belong to it and are closed with it. Throws
 * {@linkcode UsageError} where the parts do not fit together.
 */
export class CacheStage implements Backend {
  readonly blockSize = 1;
  readonly size: number;
  readonly durable: boolean;
  readonly readOnly: boolean;
  readonly traffic?: Readonly<Traffic>;
  readonly zero?: NonNullable<Backend["zero"]>;
  readonly discard?: NonNullable<Backend["discard"]>;
  /** What the stage shares with who pulls and pushes. */
  readonly region: CachedRegion;
  /** Brings chunks from the remote. */
  readonly fetcher: ChunkFetcher;
  /** Brings chunks to the remote. */
  readonly pusher: DirtySink;
  readonly #durability: Durability;
  readonly #onRead: ((from: number, to: number) => void) | undefined;
  readonly #pullers: Puller[] = [];
  #completing = false;
  #closing: Promise<void> | undefined;

  /** Nothing is fetched or pushed yet. */
  constructor(options: CacheOptions) {
    const region = this.region = new CachedRegion(options);
    this.#durability = options.durability ?? "local";
    this.#onRead = options.onRead;
    this.size = region.size;
    const owned = options.owned ?? false;
    this.readOnly = (options.readOnly ?? false) || (!owned && region.remote.readOnly);
    this.durable = this.#durability === "remote"
      ? region.remote.durable
      : region.local.durable && region.journal.durable;
    if (region.remote.traffic !== undefined) this.traffic = region.remote.traffic;
    if (region.local.zero !== undefined) {
      this.zero = this.#zero;
      this.discard = this.#discard;
    }
    this.fetcher = new ChunkFetcher(region);
    this.pusher = owned ? new Keeper(region) : new Pusher(region, this.fetcher, options.push);
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    const { region } = this;
    region.checkOpen();
    const end = offset + buffer.length;
    checkRange(this.size, offset, buffer.length);
    if (buffer.length === 0) return;
    const from = region.chunkOf(offset), to = region.chunkBehind(end);
    this.#onRead?.(from, to);
    if (this.#holds(offset, end)) return region.local.readAt(buffer, offset);
    return this.fetcher.fault(from, to).then(() => {
      region.checkOpen();
      return region.local.readAt(buffer, offset);
    });
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#checkChange(offset, buffer.length);
    if (buffer.length === 0) return;
    return this.#change(
      offset,
      offset + buffer.length,
      () => this.region.local.writeAt(buffer, offset),
    );
  }

  /**
   * Answers when all that was written before is durable: with durability `local` in the cache; with
   * `remote`, as {@linkcode sync}. Where no journal keeps chunks that are there in part, or there is
   * too much of them, they are completed first.
   */
  async flush(): Promise<void> {
    this.region.checkOpen();
    if (this.#durability === "remote") return await this.sync();
    const { journal } = this.region;
    if (journal.keepsPartial && await this.region.commit()) return;
    await this.fetcher.completePartial();
    await this.region.commit();
  }

  /**
   * Answers when all that was written before is at the remote and flushed there. Throws what the
   * remote throws after some tries; what is dirty stays so, and the next call tries again.
   */
  async sync(): Promise<void> {
    this.region.checkOpen();
    await this.pusher.sync();
  }

  async extents(offset: number, length: number): Promise<Extent[]> {
    const { region } = this;
    region.checkOpen();
    checkRange(this.size, offset, length);
    const extents: Extent[] = [];
    for (let at = offset; at < offset + length;) {
      const end = Math.min(this.#uniformEnd(at), offset + length);
      for (const extent of await this.#extentsOfRun(at, end)) appendExtent(extents, extent);
      region.checkOpen();
      at = end;
    }
    return extents;
  }

  /**
   * Begins to pull absent chunks in the background, until all are local or the cache is closed.
   * Throws {@linkcode UsageError} or `RangeError` on options out of range.
   */
  pull(options: PullOptions = {}): Puller {
    this.region.checkOpen();
    const puller = new Puller(this.region, this.fetcher, options);
    this.#pullers.push(puller);
    return puller;
  }

  /** Commits what the cache holds, and lets go of everything; what is dirty is not pushed. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  /** As {@linkcode close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const { region } = this;
    region.closed = true;
    this.pusher.stop();
    for (const puller of this.#pullers) puller.stop();
    try {
      // First what others wait for, who are answered that way.
      await region.remote.close();
      await this.fetcher.flights.landed();
      await Promise.all(this.#pullers.map((puller) => puller.idle()));
      await this.pusher.idle();
    } finally {
      await this.#closeLocal();
    }
  }

  async #closeLocal(): Promise<void> {
    const { lock, states, journal, local } = this.region;
    try {
      // Behind every change that is under way.
      await lock.exclusive(0, states.count, () => journal.close());
    } finally {
      await local.close();
    }
  }

  #zero(offset: number, length: number, options: ZeroOptions = {}): Awaitable<void> {
    this.#checkChange(offset, length);
    if (length === 0) return;
    const zero = () => this.region.local.zero!(offset, length, options);
    return this.#change(offset, offset + length, zero);
  }

  /** Zeroes the chunks that lie wholly inside, if that is quick; the others stay as they are. */
  #discard(offset: number, length: number): Awaitable<void> {
    this.#checkChange(offset, length);
    const { region } = this;
    const end = offset + length;
    const from = region.offsetOf(region.chunkBehind(offset));
    const to = end === this.size ? end : region.offsetOf(region.chunkOf(end));
    if (from >= to) return;
    return quietly(() => this.#change(from, to, () => region.local.zero!(from, to - from)));
  }

  #checkChange(offset: number, length: number): void {
    this.region.checkOpen();
    checkRange(this.size, offset, length);
    checkWritable(this);
  }

  /** Whether the cache has all bytes `[from, to)`, not always whole chunks. */
  #holds(from: number, to: number): boolean {
    const { region } = this;
    const { states, partial } = region;
    const behind = region.chunkBehind(to);
    for (let chunk = region.chunkOf(from); chunk < behind; chunk++) {
      if (states.local.has(chunk)) continue;
      const start = Math.max(from, region.offsetOf(chunk));
      if (!partial.covers(chunk, start, Math.min(to, region.offsetOf(chunk + 1)))) return false;
    }
    return true;
  }

  /** Changes bytes `[from, to)` of the cache by `apply`. */
  #change(from: number, to: number, apply: () => Awaitable<void>): Awaitable<void> {
    const { region } = this;
    const first = region.chunkOf(from), behind = region.chunkBehind(to);
    const wait = this.fetcher.placed(first, behind) ?? this.#room() ??
      this.pusher.room(first, behind);
    if (wait !== undefined) {
      return wait.then(() => {
        region.checkOpen();
        return this.#change(from, to, apply);
      });
    }
    const change = () => this.#changeHeld(from, to, first, behind, apply);
    if (region.lock.size > 0) return region.lock.exclusive(first, behind, change);
    const result = change();
    return result === undefined ? result : region.lock.exclusive(first, behind, () => result);
  }

  /** The same, while its chunks `[first, behind)` are held exclusively. */
  #changeHeld(
    from: number,
    to: number,
    first: number,
    behind: number,
    apply: () => Awaitable<void>,
  ): Awaitable<void> {
    const { region } = this;
    region.checkOpen();
    const intended = region.intend(first, behind);
    if (intended !== undefined) {
      // Until that answered, others of the chunks may have become clean.
      return intended.then(() => this.#changeHeld(from, to, first, behind, apply));
    }
    for (let chunk = first; chunk < behind; chunk++) {
      if (region.states.local.has(chunk)) region.states.written(chunk);
    }
    const result = apply();
    if (result === undefined) return this.#changed(from, to, first, behind);
    return result.then(() => this.#changed(from, to, first, behind));
  }

  /** Absent chunks were written: as a whole, so that they are local now, or in part. */
  #changed(from: number, to: number, first: number, behind: number): void {
    const { region } = this;
    const { states } = region;
    for (let at = states.nextAbsent(first, behind); at < behind;) {
      const begin = at;
      while (at < behind && !states.local.has(at) && this.#isWhole(from, to, at)) {
        states.written(at++);
      }
      if (begin < at) region.becameLocal(begin, at);
      // What ended the run is local, or there in part.
      at = states.nextAbsent(at + 1, behind);
    }
  }

  /** Whether an absent chunk is written as a whole, now that `[from, to)` was; notes it if not. */
  #isWhole(from: number, to: number, chunk: number): boolean {
    const { region } = this;
    const { partial } = region;
    const start = region.offsetOf(chunk), end = region.offsetOf(chunk + 1);
    if (from <= start && end <= to) return true;
    partial.add(chunk, Math.max(start, from), Math.min(end, to));
    return partial.covers(chunk, start, end);
  }

  /** Keeps the number of chunks bounded that are there in part; a promise where it is to wait for. */
  #room(): Promise<void> | undefined {
    const { partial } = this.region;
    if (partial.rangeCount < PARTIAL_RANGES.COMPLETE) return;
    if (partial.rangeCount >= PARTIAL_RANGES.WAIT) return this.fetcher.completePartial();
    if (this.#completing) return;
    this.#completing = true;
    const over = () => void (this.#completing = false);
    this.fetcher.completePartial().then(over, over);
  }

  /** Where the chunks end that are local, or are absent, as the one is that a byte is in. */
  #uniformEnd(offset: number): number {
    const { region } = this;
    const { states, partial } = region;
    const from = region.chunkOf(offset);
    let to = states.local.runEnd(from, states.count);
    if (states.local.has(from)) return region.offsetOf(to);
    if (partial.has(from)) return region.offsetOf(from + 1);
    for (const chunk of partial.chunks()) if (chunk > from && chunk < to) to = chunk;
    return region.offsetOf(to);
  }

  #extentsOfRun(from: number, to: number): Awaitable<Extent[]> {
    const { states, partial, local, remote } = this.region;
    const chunk = this.region.chunkOf(from);
    const length = to - from;
    if (states.local.has(chunk)) return extentsOf(local, from, length);
    if (!partial.has(chunk)) return extentsOf(remote, from, length);
    return [{ offset: from, length, hole: false, zero: false }];
  }
}

/** Does what a backend may not be able to. */
function quietly(action: () => Awaitable<void>): Awaitable<void> {
  try {
    const result = action();
    return result?.catch(ignoreUnsupported);
  } catch (error) {
    ignoreUnsupported(error);
  }
}

function ignoreUnsupported(error: unknown): void {
  if (!(error instanceof UnsupportedError)) throw error;
}
