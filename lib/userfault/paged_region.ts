/**
 * What is known of each page of a region that is paged in: three bits.
 *
 * @module
 */
import { Bitmap } from "../backend/bitmap.ts";
import { FaultWindow } from "./fault_window.ts";
import type { MemoryRegion } from "./layout.ts";

/** Pages are counted from the start of the region. */
export class PagedRegion implements MemoryRegion {
  readonly address: number;
  readonly size: number;
  readonly offset: number;
  readonly pageSize: number;
  /** Pages of the region. */
  readonly pages: number;
  /** The pages that a fault brings in. */
  readonly window: FaultWindow;
  /** Pages that nobody has to pull: they are in place, or pulled, or have to be zeroes. */
  readonly #taken: Bitmap;
  /** Pages that are in place. */
  readonly #present: Bitmap;
  /** Pages that a fault pulls; one that is taken, and neither this nor present, is pulled ahead. */
  readonly #urgent: Bitmap;
  /** Pages that their process dropped: zeroes from then on. Made when the first is. */
  #dropped: Bitmap | undefined;
  /** Pages that end whoever touches them. Made when the first is. */
  #poisoned: Bitmap | undefined;

  /** Nothing is in place. `base` and `most` are the least and most bytes that a fault brings in. */
  constructor(region: MemoryRegion, base: number, most: number) {
    const { address, size, offset, pageSize } = region;
    this.address = address;
    this.size = size;
    this.offset = offset;
    this.pageSize = pageSize;
    this.pages = size / pageSize;
    this.window = new FaultWindow(this.pages, base / pageSize, most / pageSize);
    this.#taken = new Bitmap(this.pages);
    this.#present = new Bitmap(this.pages);
    this.#urgent = new Bitmap(this.pages);
  }

  /** The page of an address. */
  pageOf(address: number): number {
    return Math.floor((address - this.address) / this.pageSize);
  }

  /** The address of a page. */
  addressOf(page: number): number {
    return this.address + page * this.pageSize;
  }

  /** Whether nobody has to pull a page. */
  isTaken(page: number): boolean {
    return this.#taken.has(page);
  }

  /** Whether a page is in place. */
  isPresent(page: number): boolean {
    return this.#present.has(page);
  }

  /** Whether every page is in place. */
  get isComplete(): boolean {
    return this.#present.has(0) && this.#present.runEnd(0, this.pages) === this.pages;
  }

  /** Whether a fault pulls a page. */
  isUrgent(page: number): boolean {
    return this.#urgent.has(page);
  }

  /** Whether a page is pulled ahead of any fault. */
  isAhead(page: number): boolean {
    return this.#taken.has(page) && !this.#present.has(page) && !this.#urgent.has(page) &&
      !this.isDropped(page);
  }

  /** Whether a page has to be zeroes. */
  isDropped(page: number): boolean {
    return this.#dropped !== undefined && this.#dropped.has(page);
  }

  /** The first page of the run around `page`, from `least` on, that nobody has taken. */
  absentFrom(page: number, least: number): number {
    let from = page;
    while (from > least && !this.#taken.has(from - 1)) from--;
    return from;
  }

  /** The page behind the run from `page` that nobody has taken, up to `limit`. */
  absentTo(page: number, limit: number): number {
    return this.#taken.runEnd(page, limit);
  }

  /** The first page from `page` on that nobody has taken; `pages` where there is none. */
  nextAbsent(page: number): number {
    if (page >= this.pages || !this.#taken.has(page)) return page;
    return this.#taken.runEnd(page, this.pages);
  }

  /** A fault pulls `[from, to)`. */
  beginUrgent(from: number, to: number): void {
    this.#taken.addRange(from, to);
    this.#urgent.addRange(from, to);
  }

  /** `[from, to)` is pulled ahead. */
  beginAhead(from: number, to: number): void {
    this.#taken.addRange(from, to);
  }

  /** `[from, to)` could not be pulled for a fault, and is not tried again. */
  giveUpUrgent(from: number, to: number): void {
    for (let page = from; page < to; page++) {
      if (!this.#urgent.has(page)) continue;
      this.#urgent.delete(page);
      this.#taken.delete(page);
    }
  }

  /** `[from, to)` could not be pulled ahead; a fault that pulls some of it goes on. */
  giveUpAhead(from: number, to: number): void {
    for (let page = from; page < to; page++) {
      if (this.isAhead(page)) this.#taken.delete(page);
    }
  }

  /** `[from, to)` got its content, also where it was poisoned. */
  fill(from: number, to: number): void {
    this.settle(from, to);
    this.#poisoned?.deleteRange(from, to);
  }

  /** `[from, to)` is in place, whoever put it there. */
  settle(from: number, to: number): void {
    this.#taken.addRange(from, to);
    this.#present.addRange(from, to);
    this.#urgent.deleteRange(from, to);
  }

  /** A page ends whoever touches it. */
  poison(page: number): void {
    this.#poisoned ??= new Bitmap(this.pages);
    this.#poisoned.add(page);
    this.settle(page, page + 1);
  }

  /** The byte up to which `[from, end)` may be touched, `from` itself where its page is poisoned. */
  readableTo(from: number, end: number): number {
    const poisoned = this.#poisoned;
    if (poisoned === undefined) return end;
    const page = Math.floor(from / this.pageSize);
    if (poisoned.has(page)) return from;
    const limit = Math.ceil(end / this.pageSize);
    return Math.min(poisoned.runEnd(page, limit) * this.pageSize, end);
  }

  /** The process dropped `[from, to)`: what is found there next is zeroes. */
  drop(from: number, to: number): void {
    this.#dropped ??= new Bitmap(this.pages);
    this.#dropped.addRange(from, to);
    this.#taken.addRange(from, to);
    this.#present.deleteRange(from, to);
  }
}
