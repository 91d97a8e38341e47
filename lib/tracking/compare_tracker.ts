/**
 * Tracks writes without help of the kernel: compares all memory with a copy of it.
 *
 * A copy and no hashes, as only that is exact. A hash can miss a change (a 32-bit one, one in 4
 * billion; 64 bits, one in 2^64), and by any hash a page is lost that changes between hashing and
 * pushing, and changes back: it looks as it did, and is not what was pushed. So what is pushed is
 * the copy, and it is what the next collection compares with. That costs as much memory again as the
 * tracked memory has in use, and a collection reads all of both (about 10 GB/s).
 *
 * @module
 */
import { Mapping } from "../../ffi/mman.ts";
import { copyMemory, equalMemory } from "../../ffi/string.ts";
import type { RangeList } from "../backend/range_list.ts";
import { DirtyPages } from "./dirty_pages.ts";
import type { TrackedRange, WriteTracker } from "./write_tracker.ts";

/** Bytes that one step looks at: about a millisecond's worth. */
const STEP = 4 << 20;
/** Bytes that are compared at a time before the pages that differ are looked for. */
const BLOCK = 128 << 10;

/** See the module. */
export class CompareTracker implements WriteTracker {
  readonly method = "compare";
  readonly #range: TrackedRange;
  #copy: Mapping;
  /** What is to be collected in any case. */
  readonly #dirty: DirtyPages;

  /**
   * Begins with an empty copy: what is not zero counts as written at the first collection. Throws
   * `SystemError` (ENOMEM).
   */
  constructor(range: TrackedRange) {
    this.#range = { ...range };
    this.#dirty = new DirtyPages(range.size, range.pageSize);
    this.#copy = mapCopy(range.size);
  }

  get size(): number {
    return this.#range.size;
  }

  get contentAddress(): number {
    return this.#copy.address;
  }

  /** The copy itself; empty after {@linkcode grow} and once it is disposed of: take it anew. */
  get copy(): Uint8Array<ArrayBuffer> {
    return this.#copy.bytes.subarray(0, this.#range.size);
  }

  collect(written: RangeList, from: number): number {
    const to = Math.min(from + Math.max(STEP, this.#range.pageSize), this.#range.size);
    this.#update(from, to);
    this.#dirty.take(written, from, to);
    return to;
  }

  restore(ranges: RangeList): void {
    this.#dirty.markAll(ranges);
  }

  /** Goes on with memory that has grown to `size` bytes; what is new counts as written. */
  grow(size: number): void {
    if (size > this.#copy.length) {
      // Twice as much, so that growing step by step copies no byte more than twice on average.
      const larger = mapCopy(Math.max(size, this.#copy.length * 2));
      copyMemory(larger.address, this.#copy.address, this.#range.size);
      this.#copy.unmap();
      this.#copy = larger;
    }
    this.#dirty.grow(size);
    this.#range.size = size;
  }

  /** Gives the copy back. */
  [Symbol.dispose](): void {
    this.#copy.unmap();
  }

  /** Brings the copy up to date, and marks the pages that differed. */
  #update(from: number, to: number): void {
    const { address, pageSize } = this.#range;
    const copy = this.#copy.address;
    const block = Math.max(BLOCK, pageSize);
    for (let at = from; at < to; at += block) {
      const end = Math.min(at + block, to);
      if (equalMemory(address + at, copy + at, end - at)) continue;
      for (let page = at; page < end; page += pageSize) {
        if (equalMemory(address + page, copy + page, pageSize)) continue;
        copyMemory(copy + page, address + page, pageSize);
        this.#dirty.mark(page, page + pageSize);
      }
    }
  }
}

function mapCopy(size: number): Mapping {
  return Mapping.map({ length: size, subject: `a copy of ${size} bytes of tracked memory` });
}
