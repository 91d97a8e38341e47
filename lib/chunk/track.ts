/**
 * A stage that remembers which chunks were written, so that they can be copied again.
 *
 * The rule that loses nothing: **a chunk is marked when a write to it is over, and unmarked before
 * it is read.** Whoever copies collects first, and reads what was collected then. A write that is
 * over before the collection is in what is read; one that is under way may be in it or not, or in
 * part, but it marks its chunks when it is over, and so they are in the next collection. To mark
 * when a write begins would lose it: collected and read before its bytes are there, its chunk would
 * never be read again. A write that failed marks as well, as a part of it may have been done.
 *
 * It follows that the last collection holds everything once no write is under way: lock writes,
 * collect, read.
 *
 * @module
 */
import {
  type Awaitable,
  type Backend,
  checkRange,
  checkWritable,
  type Extent,
  type ZeroOptions,
} from "../backend/backend.ts";
import { Bitmap } from "../backend/bitmap.ts";
import { UsageError } from "../backend/errors.ts";
import { RangeList } from "../backend/range_list.ts";
import { Stage } from "./stage.ts";

/** How {@linkcode trackBackend} tracks. */
export interface TrackOptions {
  /** Bytes of a chunk. A region has up to 2^31 of them, at one bit each while it is tracked. */
  chunkSize: number;
}

/** A backend that can tell which of its chunks were written, from {@linkcode trackBackend}. */
export interface TrackedBackend extends Backend {
  /**
   * Tracks from now on: all that is not in what the caller reads after this call is in the next
   * collection. Tracked already: forgets what was written.
   */
  start(): void;
  /** Tracks no longer, and forgets what was written. */
  stop(): void;
  /**
   * Whole chunks in which anything was written, zeroed or discarded since the last collection, or
   * since {@linkcode start}; the last chunk ends with the region. Read them after this call.
   * Throws {@linkcode UsageError} where nothing is tracked.
   */
  collect(): RangeList;
  /**
   * Marks the chunks of ranges that were collected, and could not be copied: they are in the next
   * collection. Throws {@linkcode UsageError} where nothing is tracked, and `RangeError` for what
   * lies outside of the region.
   */
  restore(ranges: RangeList): void;
}

/**
 * Makes `backend`, which belongs to the answer and is closed with it, one whose writes can be
 * tracked. They are not yet. Throws {@linkcode UsageError} for chunks that are not a count of bytes,
 * or too small.
 */
export function trackBackend(backend: Backend, options: TrackOptions): TrackedBackend {
  const { chunkSize } = options;
  const chunks = Math.ceil(backend.size / chunkSize);
  if (!Number.isSafeInteger(chunkSize) || chunkSize <= 0 || chunks > 2 ** 31) {
    throw new UsageError(`Cannot track chunks of ${chunkSize} bytes`, {
      hint: "give it a whole number of bytes, of which at most 2^31 make up the region",
    });
  }
  return new TrackStage(backend, chunkSize);
}

class TrackStage extends Stage implements TrackedBackend {
  readonly memory?: NonNullable<Backend["memory"]>;
  readonly writesAtOnce?: boolean;
  readonly #chunkSize: number;
  #written: Bitmap | undefined;

  constructor(backend: Backend, chunkSize: number) {
    super(backend);
    const { memory, writesAtOnce } = backend;
    if (memory !== undefined) this.memory = memory;
    if (writesAtOnce !== undefined) this.writesAtOnce = writesAtOnce;
    this.#chunkSize = chunkSize;
  }

  start(): void {
    this.#written = new Bitmap(Math.ceil(this.size / this.#chunkSize));
  }

  stop(): void {
    this.#written = undefined;
  }

  collect(): RangeList {
    const written = this.#tracked();
    const ranges = new RangeList();
    for (let chunk = 0; chunk < written.length;) {
      const end = written.runEnd(chunk, written.length);
      if (written.has(chunk)) {
        written.deleteRange(chunk, end);
        ranges.add(chunk * this.#chunkSize, Math.min(end * this.#chunkSize, this.size));
      }
      chunk = end;
    }
    return ranges;
  }

  restore(ranges: RangeList): void {
    this.#tracked();
    for (const { offset, length } of ranges) {
      checkRange(this.size, offset, length);
      this.#mark(offset, length);
    }
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    return this.backend.readAt(buffer, offset);
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    const { length } = buffer;
    this.#checkChange(offset, length);
    return this.#marking(offset, length, () => this.backend.writeAt(buffer, offset));
  }

  protected zeroRange(offset: number, length: number, options?: ZeroOptions): Awaitable<void> {
    this.#checkChange(offset, length);
    return this.#marking(offset, length, () => this.backend.zero!(offset, length, options));
  }

  protected discardRange(offset: number, length: number): Awaitable<void> {
    this.#checkChange(offset, length);
    return this.#marking(offset, length, () => this.backend.discard!(offset, length));
  }

  protected findExtents(offset: number, length: number): Awaitable<Extent[]> {
    return this.backend.extents!(offset, length);
  }

  #checkChange(offset: number, length: number): void {
    checkRange(this.size, offset, length);
    checkWritable(this);
  }

  /** Changes a range, and marks it when that is over, whether it succeeded or not. */
  #marking(offset: number, length: number, change: () => Awaitable<void>): Awaitable<void> {
    let result: Awaitable<void>;
    try {
      result = change();
    } catch (error) {
      this.#mark(offset, length);
      throw error;
    }
    if (result instanceof Promise) return result.finally(() => this.#mark(offset, length));
    this.#mark(offset, length);
  }

  /** Marks where it is tracked, which may have begun after the change did. */
  #mark(offset: number, length: number): void {
    if (this.#written === undefined || length === 0) return;
    const first = Math.floor(offset / this.#chunkSize);
    const last = Math.floor((offset + length - 1) / this.#chunkSize);
    if (first === last) this.#written.add(first);
    else this.#written.addRange(first, last + 1);
  }

  #tracked(): Bitmap {
    if (this.#written !== undefined) return this.#written;
    throw new UsageError("Cannot collect what was written as it is not tracked", {
      hint: "call start() first",
    });
  }
}
