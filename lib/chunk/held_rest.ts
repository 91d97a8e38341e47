/**
 * Whether the rest of a region is held back while a program reads what it was expected to read.
 *
 * What is pulled takes processor time and a share of the link from who serves the program, and does
 * not help it, as what it reads is there. So once all of that was requested, the rest is held back for
 * a moment, unless the program turns out to read something else.
 *
 * @module
 */
import { Bitmap } from "../backend/bitmap.ts";
import { pauseFor } from "./pause.ts";

/** So many waits for something else are by chance. */
const STRAYS = 4;

/** See the module. Numbers are indexes of chunks. */
export class HeldRest {
  readonly #expected: Bitmap;
  readonly #released = new AbortController();
  #strays = 0;

  /** Holds back what of `count` chunks is not expected: first and behind-last chunk of runs in turn. */
  constructor(expected: Float64Array, count: number) {
    this.#expected = new Bitmap(count);
    for (let at = 0; at < expected.length; at += 2) {
      this.#expected.addRange(expected[at]!, expected[at + 1]!);
    }
    if (expected.length === 0) this.release();
  }

  /** Whether it is held back. */
  get isHeld(): boolean {
    return !this.#released.signal.aborted;
  }

  /** Somebody waits for chunks `[from, to)`, of which some were not requested. */
  fault(from: number, to: number): void {
    if (!this.isHeld || this.#expected.has(from) && this.#expected.runEnd(from, to) === to) return;
    if (++this.#strays > STRAYS) this.release();
  }

  /** Holds it back no longer. */
  release(): void {
    this.#released.abort();
  }

  /** Answers when it is not held back any more: after so many milliseconds at the latest. */
  async until(milliseconds: number): Promise<void> {
    await pauseFor(milliseconds, this.#released.signal);
    this.release();
  }
}
