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
  /** What was read and it did not tell of; all that was read, where there is none. */
  readonly missed: number;
}

/** Ranges that are recorded at most; what is touched later is not. */
export const PROFILE_RANGES = 1 << 20;
/** Who touched fewer chunks than such a share of what was expected only had a look. */
const GLANCE = 0.5;

/** See the module. Takes a bit a chunk, a second one where something is expected, and the ranges. */
export class AccessRecorder {
  readonly #layout: ChunkLayout;
  readonly #touched: Bitmap;
  readonly #expected: Bitmap | undefined;
  readonly #expectedCount: number;
  /** First and behind-last chunk of each run that is expected, in turn. */
  readonly #expectedRuns: Float64Array;
  /** First and behind-last chunk of each run in turn. */
  readonly #runs: number[] = [];
  #used = 0;
  #missed = 0;

  /** Nothing was touched yet; what was `expected` is compared to what will be. */
  constructor(layout: ChunkLayout, expected?: Iterable<ByteRange>) {
    this.#layout = layout;
    this.#touched = new Bitmap(layout.count);
    const runs = this.#expectedRuns = listRanges(expected ?? [], layout);
    if (runs.length > 0) this.#expected = new Bitmap(layout.count);
    for (let at = 0; at < runs.length; at += 2) {
      this.#expected!.addRange(runs[at]!, runs[at + 1]!);
    }
    this.#expectedCount = this.#expected?.count() ?? 0;
  }

  /** Chunks `[from, to)` are read, perhaps not for the first time. */
  touch(from: number, to: number): void {
    for (let chunk = from; chunk < to; chunk++) {
      if (!this.#touched.has(chunk)) this.#touchFirst(chunk);
    }
  }

  /** What is expected, in its order, in bytes. */
  *expected(): Generator<ByteRange> {
    const runs = this.#expectedRuns;
    for (let at = 0; at < runs.length; at += 2) yield this.#range(runs[at]!, runs[at + 1]!);
  }

  /** What was touched, in the order of the first times, in bytes. */
  *ranges(): Generator<ByteRange> {
    const runs = this.#runs;
    for (let at = 0; at < runs.length; at += 2) yield this.#range(runs[at]!, runs[at + 1]!);
  }

  /**
   * What to expect the next time: what was touched, as {@linkcode ranges} has it. Where somebody
   * only had a look, as programs do that search for file systems, the rest of what was expected
   * follows.
   */
  *next(): Generator<ByteRange> {
    let room = PROFILE_RANGES;
    for (const range of this.#isGlance() ? this.#withUntouched() : this.ranges()) {
      if (room-- === 0) return;
      yield range;
    }
  }

  /** How far what was expected was right. */
  get counts(): ProfileCounts {
    const expected = this.#expectedCount, used = this.#used;
    return { expected, used, wasted: expected - used, missed: this.#missed };
  }

  #isGlance(): boolean {
    return this.#used + this.#missed < this.#expectedCount * GLANCE;
  }

  *#withUntouched(): Generator<ByteRange> {
    yield* this.ranges();
    const runs = this.#expectedRuns, touched = this.#touched;
    for (let at = 0; at < runs.length; at += 2) {
      const behind = runs[at + 1]!;
      for (let from = runs[at]!, to; from < behind; from = to) {
        to = touched.runEnd(from, behind);
        if (!touched.has(from)) yield this.#range(from, to);
      }
    }
  }

  #range(from: number, to: number): ByteRange {
    const { chunkSize } = this.#layout;
    return { offset: from * chunkSize, length: (to - from) * chunkSize };
  }

  #touchFirst(chunk: number): void {
    this.#touched.add(chunk);
    if (this.#expected?.has(chunk)) this.#used++;
    else this.#missed++;
    const runs = this.#runs;
    if (runs.at(-1) === chunk) runs[runs.length - 1] = chunk + 1;
    else if (runs.length < PROFILE_RANGES * 2) runs.push(chunk, chunk + 1);
  }
}
