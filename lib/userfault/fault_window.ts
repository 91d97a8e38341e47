/**
 * How many pages a fault brings in: few where faults are scattered, ever more where they go through
 * the memory in order, forwards or backwards, in one place or several at a time.
 *
 * @module
 */

/** Sequences that are followed at a time. */
const STREAMS = 8;
/** Of each: where it is, side by side as all of it is looked at with every fault. */
const START = 0, END = 1, SIZE = 2, USED = 3, STRIDE = 4;

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
  readonly #streams = new Float64Array(STREAMS * STRIDE);
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
    for (let at = 0; at < this.#streams.length; at += STRIDE) {
      this.#streams[at + START] = this.#streams[at + END] = -1;
    }
  }

  /** Sets {@linkcode from} and {@linkcode to} for a fault: a run around, or from, that page. */
  next(page: number): void {
    const stream = this.#find(page);
    if (stream < 0) this.#scatter(page);
    else this.#follow(stream, page);
  }

  /** Where the sequence lies that goes on with a page, or -1. A few pages may have been passed over. */
  #find(page: number): number {
    const streams = this.#streams;
    for (let at = 0; at < streams.length; at += STRIDE) {
      const start = streams[at + START]!, end = streams[at + END]!;
      const reach = Math.min(streams[at + SIZE]!, this.#base);
      if (page >= end && page < end + reach) return at;
      if (page < start && page >= start - reach) return at;
    }
    return -1;
  }

  #follow(stream: number, page: number): void {
    const size = Math.min(this.#streams[stream + SIZE]! * 2, this.#most);
    const backwards = page < this.#streams[stream + START]!;
    this.#scattered = Math.min(this.#scattered * 2, this.#base);
    this.#set(backwards ? page + 1 - size : page, size);
    this.#remember(stream, size);
  }

  #scatter(page: number): void {
    const size = this.#scattered;
    this.#scattered = Math.max(Math.floor(size / 2), 1);
    this.#set(page - page % size, size);
    const streams = this.#streams;
    let oldest = 0;
    for (let at = STRIDE; at < streams.length; at += STRIDE) {
      if (streams[at + USED]! < streams[oldest + USED]!) oldest = at;
    }
    this.#remember(oldest, size);
  }

  #set(from: number, size: number): void {
    this.from = Math.max(from, 0);
    this.to = Math.min(from + size, this.#pages);
  }

  #remember(stream: number, size: number): void {
    const streams = this.#streams;
    streams[stream + START] = this.from;
    streams[stream + END] = this.to;
    streams[stream + SIZE] = size;
    streams[stream + USED] = ++this.#clock;
  }
}
