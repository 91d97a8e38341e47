/**
 * What the cache, the pull and the push of one region share: its two backends, the states of its
 * chunks, and the lock that keeps changes of a chunk's local content apart.
 *
 * @module
 */
import type { Backend } from "../backend/backend.ts";
import { ClosedError, UsageError } from "../backend/errors.ts";
import { settleAll } from "../backend/settle.ts";
import { alignBackend } from "./align.ts";
import { BufferPool } from "./buffer_pool.ts";
import { type CacheJournal, volatileJournal } from "./cache_journal.ts";
import { ChunkStates, countChunks } from "./chunk_states.ts";
import { flushFirst } from "./flush_first.ts";
import type { PartialChunks } from "./partial_chunks.ts";
import { RangeLock } from "./range_lock.ts";
import { UrgentReads } from "./urgent_reads.ts";

/** Requests for several chunks are at most so large, in bytes; one for a larger chunk is larger. */
const REQUEST_BYTES = 1 << 20;

/** What a {@linkcode CachedRegion} is made of. */
export interface CachedRegionOptions {
  /** Where the region is. */
  remote: Backend;
  /** Where its chunks are kept on this host: at least as large. */
  local: Backend;
  /** Bytes of a chunk: a multiple of 4 KiB, up to 32 MiB. */
  chunkSize: number;
  /** What remembers the states; unless given, nothing does. */
  journal?: CacheJournal | undefined;
  /** Told of absent chunks `[from, to)` that became local. */
  onLocal?: ((from: number, to: number) => void) | undefined;
}

/**
 * See the module. Of the lock, whoever changes local content of chunks holds them exclusively, and
 * so does who copies it to push it; reading takes no part.
 */
export class CachedRegion {
  /** Takes any range, and closes the backend that was given. */
  readonly remote: Backend;
  /** Likewise. */
  readonly local: Backend;
  /** Bytes of the region. */
  readonly size: number;
  /** Bytes of a chunk; the last one may be shorter. */
  readonly chunkSize: number;
  /** Chunks of a request for several ones, at least one. */
  readonly requestChunks: number;
  /** Bytes of the largest request. */
  readonly requestBytes: number;
  /** Buffers for such requests. */
  readonly buffers: BufferPool;
  /** What is known of each chunk. */
  readonly states: ChunkStates;
  /** Absent chunks that were written in part. */
  readonly partial: PartialChunks;
  /** Over indexes of chunks. */
  readonly lock: RangeLock = new RangeLock();
  /** What remembers the states. */
  readonly journal: CacheJournal;
  readonly #journalled: boolean;
  #unrecorded = false;
  /** Reads of absent chunks that somebody waits for: what works in the background gives way. */
  readonly urgent: UrgentReads = new UrgentReads();
  /** Bytes of chunks that came from the remote, and were all zeroes. */
  zeroBytes = 0;
  /** Set when nothing may be begun any more. */
  closed = false;
  readonly #onLocal: (from: number, to: number) => void;

  /** Throws {@linkcode UsageError} where the parts do not fit together. */
  constructor(options: CachedRegionOptions) {
    const { remote, local, chunkSize, journal } = options;
    const chunks = countChunks(remote.size, chunkSize);
    if (local.readOnly || local.size < remote.size) {
      const fault = local.readOnly ? "one that is read-only" : `one of ${local.size} bytes`;
      throw new UsageError(`Cannot cache a region of ${remote.size} bytes in ${fault}`, {
        hint: "give the cache a backend of the region's size that can be written",
      });
    }
    if (journal !== undefined && journal.local.length !== chunks) {
      throw new UsageError(
        `Cannot cache ${chunks} chunks with a journal of ${journal.local.length}`,
      );
    }
    const mayBeUnflushed = journal !== undefined && !journal.isNew && !remote.readOnly;
    this.remote = alignBackend(mayBeUnflushed ? flushFirst(remote) : remote);
    this.local = alignBackend(local);
    this.size = remote.size;
    this.chunkSize = chunkSize;
    this.requestChunks = Math.max(Math.floor(REQUEST_BYTES / chunkSize), 1);
    this.requestBytes = Math.min(this.requestChunks * chunkSize, this.size);
    this.buffers = new BufferPool(this.requestBytes);
    this.journal = journal ?? volatileJournal(chunks);
    this.#journalled = journal !== undefined;
    this.states = new ChunkStates(this.journal);
    this.partial = this.journal.partial;
    this.#onLocal = options.onLocal ?? (() => {});
  }

  /** The chunk that a byte is in. */
  chunkOf(offset: number): number {
    return Math.floor(offset / this.chunkSize);
  }

  /** The chunk behind the one that the last byte before `end` is in. */
  chunkBehind(end: number): number {
    return Math.ceil(end / this.chunkSize);
  }

  /** The first byte of a chunk, or the end of the region for the one behind the last. */
  offsetOf(chunk: number): number {
    return Math.min(chunk * this.chunkSize, this.size);
  }

  /** Bytes of the region that are local. */
  get localBytes(): number {
    return this.#bytes(this.states.localCount, this.states.local.has(this.states.count - 1));
  }

  /** Bytes of the region that are owed to the remote, whole chunks counted also if one is in part. */
  get dirtyBytes(): number {
    const { states, partial } = this;
    const last = states.count - 1;
    return this.#bytes(
      states.dirtyCount + partial.count,
      states.dirty.has(last) || partial.has(last),
    );
  }

  /** Whether chunks became local since the last commit: a crash would have them fetched again. */
  get unrecorded(): boolean {
    return this.#unrecorded;
  }

  /**
   * To be awaited, again and again until there is nothing to wait for, before local content of
   * chunks `[from, to)` is changed, which are held exclusively.
   */
  intend(from: number, to: number): Promise<void> | undefined {
    const { local, dirty } = this.states;
    const waits: Promise<void>[] = [];
    for (let at = from; at < to; at++) {
      if (dirty.has(at) || !local.has(at)) continue;
      let end = at + 1;
      while (end < to && local.has(end) && !dirty.has(end)) end++;
      const wait = this.journal.intend(at, end);
      if (wait !== undefined) waits.push(wait);
      at = end;
    }
    if (waits.length > 0) return settleAll(waits);
  }

  /**
   * Makes the present states durable, with the content of the chunks; answers whether those are
   * included that are there in part.
   */
  async commit(): Promise<boolean> {
    this.#unrecorded = false;
    try {
      if (this.#journalled) return await this.journal.commit();
      await this.local.flush();
      return false;
    } catch (error) {
      this.#unrecorded = true;
      throw error;
    }
  }

  /** Absent chunks `[from, to)` became local: tells those who want to know. */
  becameLocal(from: number, to: number): void {
    for (let chunk = from; chunk < to; chunk++) this.partial.delete(chunk);
    this.#unrecorded = true;
    this.#onLocal(from, to);
  }

  /** Throws {@linkcode ClosedError} once the region is closed. */
  checkOpen(): void {
    if (this.closed) throw new ClosedError("Cannot use the cache as it was closed");
  }

  #bytes(chunks: number, withLast: boolean): number {
    const whole = chunks * this.chunkSize;
    return withLast ? whole - (this.states.count * this.chunkSize - this.size) : whole;
  }
}
