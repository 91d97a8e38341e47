/**
 * Tracks writes by the page tables alone: the kernel lets a write to a protected page through and
 * lifts the protection, and a scan finds the pages that lack it and protects them again in the same
 * step (WP_ASYNC and PAGEMAP_SCAN, Linux 6.7; Documentation/admin-guide/mm/pagemap.rst).
 *
 * Whoever makes the tracker has registered the memory for WP with a userfaultfd that has WP_ASYNC,
 * and keeps that open.
 *
 * @module
 */
import { PAGE_IS, PagemapScanner, PM_SCAN } from "../../ffi/pagemap.ts";
import type { RangeList } from "../backend/range_list.ts";
import { DirtyPages } from "./dirty_pages.ts";
import type { TrackedRange, WriteTracker } from "./write_tracker.ts";

/** Bytes that one step looks at: 65536 small pages take about 0.2 ms. */
const STEP = 256 << 20;
/** Pages that one step protects, about a millisecond's worth. A huge page counts as many. */
const PAGES_MAX = 16384;
const SMALL_PAGE = 4096;
/** Ranges that one step finds. */
const RANGES_MAX = 4096;

/** What becomes of pages that nobody put in place. */
export interface AsyncTrackerOptions {
  /**
   * Whether the memory is paged in by faults (registered for MISSING too). There a page counts as
   * written only where it is in place or in swap, and is not the zero page: what is missing was
   * never written, and the zero page cannot be put in place protected. Put content in place
   * protected (`UFFD_FILL.WP`) and never protect missing pages: the zero page cannot take their place
   * then. A page that was poisoned is counted as written once.
   *
   * Where it is not, every page must have been protected, missing ones too. Then a page that was
   * dropped (MADV_DONTNEED) counts as written as well: it is zeroes now. The kernel does not tell
   * that of huge page files and shared memory.
   */
  pagedIn: boolean;
}

/** See the module. */
export class AsyncTracker implements WriteTracker {
  readonly method = "async-wp";
  readonly #range: TrackedRange;
  readonly #scanner: PagemapScanner;
  /** What is to be collected beside what a scan finds. */
  readonly #dirty: DirtyPages;

  /** Begins with the pages that lack protection now as written. Throws `SystemError` (ENOENT). */
  constructor(range: TrackedRange, { pagedIn }: AsyncTrackerOptions) {
    this.#range = { ...range };
    this.#dirty = new DirtyPages(range.size, range.pageSize);
    this.#scanner = new PagemapScanner({
      flags: PM_SCAN.WP_MATCHING | PM_SCAN.CHECK_WPASYNC,
      all: pagedIn ? PAGE_IS.WRITTEN | PAGE_IS.PFNZERO : PAGE_IS.WRITTEN,
      any: pagedIn ? PAGE_IS.PRESENT | PAGE_IS.SWAPPED : 0,
      inverted: pagedIn ? PAGE_IS.PFNZERO : 0,
      report: PAGE_IS.WRITTEN,
      capacity: RANGES_MAX,
      maxPages: Math.max(PAGES_MAX, range.pageSize / SMALL_PAGE),
    });
  }

  get size(): number {
    return this.#range.size;
  }

  get contentAddress(): number {
    return this.#range.address;
  }

  collect(written: RangeList, from: number): number {
    const { address, size, pageSize } = this.#range;
    const to = Math.min(from + Math.max(STEP, pageSize), size);
    const scanner = this.#scanner, dirty = this.#dirty;
    let count: number;
    try {
      count = scanner.scan(address + from, address + to);
    } catch (error) {
      // Some of the pages may be clean already without having been told.
      dirty.mark(from, to);
      throw error;
    }
    const stopped = Math.min(scanner.walkEnd - address, to);
    // Mostly nothing is to be collected beside what the scan found.
    const more = dirty.mayHave(from, stopped);
    for (let index = 0; index < count; index++) {
      const start = scanner.start(index) - address, end = scanner.end(index) - address;
      if (more) dirty.mark(start, end);
      else written.add(start, end);
    }
    if (more) dirty.take(written, from, stopped);
    return stopped;
  }

  restore(ranges: RangeList): void {
    this.#dirty.markAll(ranges);
  }

  /**
   * Goes on with memory that has grown to `size` bytes; what is new counts as written, and is
   * registered and protected by now.
   */
  grow(size: number): void {
    this.#dirty.grow(size);
    this.#range.size = size;
  }

  /** Closes what it scans by; the memory stays registered. */
  [Symbol.dispose](): void {
    this.#scanner[Symbol.dispose]();
  }
}
