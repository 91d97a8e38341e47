/**
 * Tracks writes by faults: a page is write-protected, and the thread that writes to it first waits
 * until its handler has made a note and lifted the protection (Linux 5.7;
 * Documentation/admin-guide/mm/userfaultfd.rst).
 *
 * The tracker neither opens nor reads the userfaultfd: whoever handles its messages passes the
 * faults on. All of it runs on that thread, so that note and protection change together.
 *
 * @module
 */
import { fillError, fillOutcome, type Userfault } from "../../ffi/userfaultfd.ts";
import type { RangeList } from "../backend/range_list.ts";
import { DirtyPages } from "./dirty_pages.ts";
import type { TrackedRange, WriteTracker } from "./write_tracker.ts";

/** Runs that one step protects: a system call each. */
const RUNS_MAX = 1024;
/** Bytes that one step protects at most. */
const BYTES_MAX = 64 << 20;

/** See the module. */
export class FaultTracker implements WriteTracker {
  readonly method = "wp-faults";
  readonly #range: TrackedRange;
  readonly #uffd: Userfault;
  readonly #dirty: DirtyPages;

  /**
   * Begins with no page written. The memory is registered for WP, and what is in place is protected;
   * what is put in place later must be so too (`UFFD_FILL.WP`; no zero page), or be marked by
   * {@linkcode markWritten}.
   */
  constructor(uffd: Userfault, range: TrackedRange) {
    this.#uffd = uffd;
    this.#range = { ...range };
    this.#dirty = new DirtyPages(range.size, range.pageSize);
  }

  get size(): number {
    return this.#range.size;
  }

  get contentAddress(): number {
    return this.#range.address;
  }

  /** Whether an address lies in this memory. */
  has(address: number): boolean {
    return address >= this.#range.address && address < this.#range.address + this.#range.size;
  }

  /** Notes a write to a protected page, and lets it go on. `address` lies in this memory. */
  onWriteFault(address: number): void {
    const { pageSize } = this.#range;
    const page = address - address % pageSize;
    this.markWritten(page);
    const result = this.#uffd.writeUnprotect(page, pageSize);
    // Where the mapping is being changed, the writer faults again: its next message is behind the
    // event that has to be read first.
    if (result < 0) this.#uffd.wake(page, pageSize);
  }

  /** Counts the page of an address as written, such as one that was put in place unprotected. */
  markWritten(address: number): void {
    const offset = address - this.#range.address;
    this.#dirty.mark(offset, offset + 1);
  }

  collect(written: RangeList, from: number): number {
    const { address, size, pageSize } = this.#range;
    const dirty = this.#dirty;
    let at = dirty.next(from, size);
    for (let runs = 0; runs < RUNS_MAX && at < size; runs++) {
      const end = dirty.end(at, Math.min(at + BYTES_MAX, size));
      if (protectPages(this.#uffd, address + at, end - at, pageSize)) dirty.clear(at, end);
      written.add(at, end);
      at = dirty.next(end, size);
      if (end - from >= BYTES_MAX) return end;
    }
    return at;
  }

  restore(ranges: RangeList): void {
    // Their pages are still protected, and need not fault to be collected again.
    this.#dirty.markAll(ranges);
  }

  /**
   * Goes on with memory that has grown to `size` bytes; what is new counts as written, and is
   * registered by now.
   */
  grow(size: number): void {
    this.#dirty.grow(size);
    this.#range.size = size;
  }

  /** Does nothing: the userfaultfd belongs to its handler. */
  [Symbol.dispose](): void {}
}

/**
 * Write-protects memory that is registered for WP, however many mappings it lies in: before Linux
 * 6.4, one request reaches no further than one. Answers false where some of it cannot be protected
 * right now, as its mapping is being changed. Throws `SystemError` (ENOENT: some of it is not
 * registered).
 */
export function protectPages(
  uffd: Userfault,
  address: number,
  length: number,
  pageSize: number,
): boolean {
  const result = uffd.writeProtect(address, length);
  if (result >= 0) return true;
  const outcome = fillOutcome(result, length);
  if (outcome === "changing") return false;
  if (outcome !== "unmapped" || length <= pageSize) {
    throw fillError("write-protect pages", address, result);
  }
  const half = Math.ceil(length / pageSize / 2) * pageSize;
  const first = protectPages(uffd, address, half, pageSize);
  return protectPages(uffd, address + half, length - half, pageSize) && first;
}
