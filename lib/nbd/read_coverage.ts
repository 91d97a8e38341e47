/**
 * Which bytes of a READ the chunks of a structured reply have brought: they may come in any order
 * but not overlap, and together they must be all of it.
 *
 * @module
 */

/** Gaps that a reply may leave open at a time. No server is known to leave one. */
const GAP_LIMIT = 256;

/** The parts of one read, as ranges relative to its start. */
export class ReadCoverage {
  /** Everything before this is there. */
  #head = 0;
  /** Ranges beyond it, in order: start, end, start, end … */
  readonly #beyond: number[] = [];

  /** Adds a range; false where it overlaps one, or leaves more gaps open than is allowed. */
  add(start: number, end: number): boolean {
    if (start < this.#head) return false;
    const beyond = this.#beyond;
    let at = 0;
    while (at < beyond.length && beyond[at]! < start) at += 2;
    if (at > 0 && beyond[at - 1]! > start) return false;
    if (at < beyond.length && beyond[at]! < end) return false;
    beyond.splice(at, 0, start, end);
    this.#join(at);
    return beyond.length <= 2 * GAP_LIMIT;
  }

  /** Whether all of a read of `length` bytes is there. */
  isComplete(length: number): boolean {
    return this.#head === length;
  }

  #join(at: number): void {
    const beyond = this.#beyond;
    if (beyond[at + 1] === beyond[at + 2]) beyond.splice(at + 1, 2);
    if (at > 0 && beyond[at - 1] === beyond[at]) beyond.splice(at - 1, 2);
    if (beyond[0] !== this.#head) return;
    this.#head = beyond[1]!;
    beyond.splice(0, 2);
  }
}
