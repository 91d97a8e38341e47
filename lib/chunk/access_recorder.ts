/**
 * Records which chunks are read for the first time, in which order, and how that compares to what
 * was expected.
 *
 * @module
 */
import { Bitmap } from "../backend/bitmap.ts";
import type { ByteRange } from "../backend/range_list.ts";
import { type ChunkLayout, listRanges } from "./pull_order.ts";

/** How far a profile was right so far; all in chunks. */
export interface ProfileCounts {
  /** What it told of. */
  readonly expected: number;
  /** What of that was read. */
  readonly used: number;
  /** What of that was not read. */
  readonly wasted: number;
  /** What was read and it did not tell of. */
  readonly missed: number;
}

/** Ranges that are recorded at most; what is touched later is not. */
export const PROFILE_RANGES = 1 << 20;

/** See the module. Takes a bit a chunk, a second one where something is expected, and the ranges. */
export class AccessRecorder {
  readonly #layout: ChunkLayout;
  readonly #touched: Bitmap;
  readonly #expected: Bitmap | undefined;
  readonly #expectedCount: number;
  /** First and behind-last chunk of each run in turn. */
  readonly #runs: number[] = [];
  #used = 0;
  #missed = 0;

  /** Nothing was touched yet; what was `expected` is compared to what will be. */
  constructor(layout: ChunkLayout, expected?: Iterable<ByteRange>) {
    this.#layout = layout;
    this.#touched = new Bitmap(layout.count);
    if (expected !== undefined) {
      this.#expected = new Bitmap(layout.count);
      const list = listRanges(expected, layout);
      for (let at = 0; at < list.length; at += 2) {
        this.#expected.addRange(list[at]!, list[at + 1]!);
      }
    }
    this.#expectedCount = this.#expected?.count() ?? 0;
  }

  /** Chunks `[from, to)` are read, perhaps not for the first time. */
  touch(from: number, to: number): void {
    for (let chunk = from; chunk < to; chunk++) {
      if (!this.#touched.has(chunk)) this.#touchFirst(chunk);
    }
  }

  /** What was touched, in bytes, in the order of the first times. */
  *ranges(): Generator<ByteRange> {
    const { chunkSize } = this.#layout;
    for (let at = 0; at < this.#runs.length; at += 2) {
      const from = this.#runs[at]!;
      yield { offset: from * chunkSize, length: (this.#runs[at + 1]! - from) * chunkSize };
    }
  }

  /** How far what was expected was right. */
  get counts(): ProfileCounts {
    const expected = this.#expectedCount, used = this.#used;
    return { expected, used, wasted: expected - used, missed: this.#missed };
  }

  #touchFirst(chunk: number): void {
    this.#touched.add(chunk);
    if (this.#expected?.has(chunk)) this.#used++;
    else if (this.#expected !== undefined) this.#missed++;
    const runs = this.#runs;
    if (runs.at(-1) === chunk) runs[runs.length - 1] = chunk + 1;
    else if (runs.length < PROFILE_RANGES * 2) runs.push(chunk, chunk + 1);
  }
}
