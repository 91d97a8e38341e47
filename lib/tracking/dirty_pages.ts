/**
 * The pages of a run of memory that were written and not yet collected, at one bit each.
 *
 * @module
 */
import { Bitmap } from "../backend/bitmap.ts";
import type { RangeList } from "../backend/range_list.ts";

/** A set of pages that grows with its memory. Offsets are bytes from the memory's first one. */
export class DirtyPages {
  readonly #pageSize: number;
  #bits: Bitmap;
  /** No page that ends before this byte is dirty … */
  #low = Infinity;
  /** … and none that begins at this one or behind it. */
  #high = 0;

  /** None of the pages of `size` bytes is dirty. */
  constructor(size: number, pageSize: number) {
    this.#pageSize = pageSize;
    this.#bits = new Bitmap(size / pageSize);
  }

  /** Whether the page of a byte is dirty. */
  has(offset: number): boolean {
    return this.#bits.has(Math.floor(offset / this.#pageSize));
  }

  /** False only where no page from `start` to `end` is dirty; at once, unlike {@linkcode next}. */
  mayHave(start: number, end: number): boolean {
    return this.#low < end && this.#high > start;
  }

  /** Makes every page dirty that has a byte of `[start, end)`. */
  mark(start: number, end: number): void {
    this.#low = Math.min(this.#low, start);
    this.#high = Math.max(this.#high, end);
    const from = Math.floor(start / this.#pageSize), to = Math.ceil(end / this.#pageSize);
    if (to - from === 1) this.#bits.add(from);
    else this.#bits.addRange(from, to);
  }

  /** Makes every page dirty that has a byte of one of the ranges. */
  markAll(ranges: RangeList): void {
    for (let index = 0; index < ranges.count; index++) {
      this.mark(ranges.start(index), ranges.end(index));
    }
  }

  /** Makes the pages from `start` to `end`, page boundaries, clean. */
  clear(start: number, end: number): void {
    this.#bits.deleteRange(start / this.#pageSize, end / this.#pageSize);
  }

  /**
   * Where the first dirty page at or behind `start`, a page boundary, begins; `limit` where none is
   * before that.
   */
  next(start: number, limit: number): number {
    return start >= limit || this.has(start) ? start : this.end(start, limit);
  }

  /** The first boundary behind `start` at which dirty pages meet clean ones, or `limit`. */
  end(start: number, limit: number): number {
    const from = start / this.#pageSize, to = limit / this.#pageSize;
    return this.#bits.runEnd(from, to) * this.#pageSize;
  }

  /** Moves the dirty pages from `start` to `end`, page boundaries, into a list of ranges. */
  take(into: RangeList, start: number, end: number): void {
    for (let at = this.next(start, end); at < end;) {
      const until = this.end(at, end);
      into.add(at, until);
      this.clear(at, until);
      at = this.next(until, end);
    }
    if (start <= this.#low) this.#low = Math.max(this.#low, end);
    if (end >= this.#high) this.#high = Math.min(this.#high, start);
    if (this.#low >= this.#high) [this.#low, this.#high] = [Infinity, 0];
  }

  /** Goes on with memory of `size` bytes, no less than before; what is new is dirty. */
  grow(size: number): void {
    const before = this.#bits;
    this.#bits = new Bitmap(size / this.#pageSize);
    new Uint8Array(this.#bits.buffer).set(new Uint8Array(before.buffer));
    this.mark(before.length * this.#pageSize, size);
  }
}
