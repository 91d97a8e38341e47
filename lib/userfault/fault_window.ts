/**
 * How many pages a fault brings in: few where faults are scattered, ever more where they go through
 * the memory in order, forwards or backwards, in one place or several at a time.
 *
 * @module
 */

/** Sequences that are followed at a time. */
const STREAMS = 8;

/** The window of each fault of one region, in pages. Pure but for what it remembers. */
export class FaultWindow {
  /** First page of the window of the last fault. */
  from = 0;
  /** The page behind it. */
  to = 0;
  readonly #pages: number;
  readonly #base: number;
  readonly #most: number;
  /** Window of a fault that continues nothing. */
  #scattered: number;
  readonly #starts = new Float64Array(STREAMS).fill(-1);
  readonly #ends = new Float64Array(STREAMS).fill(-1);
  readonly #sizes = new Float64Array(STREAMS);
  readonly #used = new Float64Array(STREAMS);
  #clock = 0;

  /**
   * @param pages Pages of the region.
   * @param base Pages that the first fault brings in.
   * @param most Pages that a fault in order brings in at last; `base` or more.
   */
  constructor(pages: number, base: number, most: number) {
    this.#pages = pages;
    this.#base = Math.max(base, 1);
    this.#most = Math.max(most, this.#base);
    this.#scattered = this.#base;
  }

  /** Sets {@linkcode from} and {@linkcode to} for a fault: a run around, or from, that page. */
  next(page: number): void {
    const stream = this.#find(page);
    if (stream < 0) this.#scatter(page);
    else this.#follow(stream, page);
  }

  /** The sequence that goes on with a page, or -1. A few pages may have been passed over. */
  #find(page: number): number {
    for (let stream = 0; stream < STREAMS; stream++) {
      const start = this.#starts[stream]!, end = this.#ends[stream]!;
      const reach = Math.min(this.#sizes[stream]!, this.#base);
      if (page >= end && page < end + reach) return stream;
      if (page < start && page >= start - reach) return stream;
    }
    return -1;
  }

  #follow(stream: number, page: number): void {
    const size = Math.min(this.#sizes[stream]! * 2, this.#most);
    const backwards = page < this.#starts[stream]!;
    this.#scattered = Math.min(this.#scattered * 2, this.#base);
    this.#set(backwards ? page + 1 - size : page, size);
    this.#remember(stream, size);
  }

  #scatter(page: number): void {
    const size = this.#scattered;
    this.#scattered = Math.max(Math.floor(size / 2), 1);
    this.#set(page - page % size, size);
    let oldest = 0;
    for (let stream = 1; stream < STREAMS; stream++) {
      if (this.#used[stream]! < this.#used[oldest]!) oldest = stream;
    }
    this.#remember(oldest, size);
  }

  #set(from: number, size: number): void {
    this.from = Math.max(from, 0);
    this.to = Math.min(from + size, this.#pages);
  }

  #remember(stream: number, size: number): void {
    this.#starts[stream] = this.from;
    this.#ends[stream] = this.to;
    this.#sizes[stream] = size;
    this.#used[stream] = ++this.#clock;
  }
}
