/**
 * Tracks writes to memory that is paged in where the kernel cannot write-protect it: compares what
 * is in place with a copy of what was put there. Pages that are missing are never touched: who
 * compares is who would have to bring them in.
 *
 * It costs as much memory again as is in place; see `compare_tracker.ts` for why a copy.
 *
 * @module
 */
import { Mapping } from "../../ffi/mman.ts";
import { copyMemory, equalMemory } from "../../ffi/string.ts";
import type { RangeList } from "../backend/range_list.ts";
import { DirtyPages } from "../tracking/dirty_pages.ts";
import type { PagedRegion } from "./paged_region.ts";
import type { WriteTracker } from "../tracking/write_tracker.ts";

/** Bytes that one step looks at: about a millisecond's worth. */
const STEP = 4 << 20;

/** See the module. */
export class PagedCompareTracker implements WriteTracker {
  readonly method = "compare";
  readonly #region: PagedRegion;
  readonly #copy: Mapping;
  /** What is to be collected in any case. */
  readonly #dirty: DirtyPages;

  /** Begins with nothing in place. Throws `SystemError` (ENOMEM). */
  constructor(region: PagedRegion) {
    this.#region = region;
    this.#dirty = new DirtyPages(region.size, region.pageSize);
    this.#copy = Mapping.map({
      length: region.size,
      subject: `a copy of ${region.size} bytes of tracked memory`,
    });
  }

  get size(): number {
    return this.#region.size;
  }

  get contentAddress(): number {
    return this.#copy.address;
  }

  /** Takes what was put in place at `offset`: the bytes at `source`, or zeroes where that is -1. */
  placed(offset: number, source: number, length: number): void {
    // The copy is zeroes where nothing was put in place before.
    if (source >= 0) copyMemory(this.#copy.address + offset, source, length);
  }

  collect(written: RangeList, from: number): number {
    const { address, pageSize, size } = this.#region;
    const to = Math.min(from + Math.max(STEP, pageSize), size);
    for (let at = from; at < to; at += pageSize) {
      if (!this.#isReadable(at)) continue;
      if (equalMemory(address + at, this.#copy.address + at, pageSize)) continue;
      copyMemory(this.#copy.address + at, address + at, pageSize);
      this.#dirty.mark(at, at + pageSize);
    }
    this.#dirty.take(written, from, to);
    return to;
  }

  restore(ranges: RangeList): void {
    this.#dirty.markAll(ranges);
  }

  /** Gives the copy back. */
  [Symbol.dispose](): void {
    this.#copy.unmap();
  }

  #isReadable(offset: number): boolean {
    const region = this.#region;
    return region.isPresent(offset / region.pageSize) &&
      region.readableTo(offset, offset + region.pageSize) > offset;
  }
}
