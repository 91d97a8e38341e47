/**
 * A set of small integers at one bit each, in memory that several Workers may share.
 *
 * @module
 */

/**
 * A fixed-size set of integers from 0. Changes are atomic for each word, so that Workers that hold
 * the same `buffer` never undo each other's.
 */
export class Bitmap {
  /** The bits, to make another Bitmap of the same `length` over in another Worker. */
  readonly buffer: SharedArrayBuffer;
  /** Members are below it; at most 2^31. */
  readonly length: number;
  readonly #words: Int32Array<SharedArrayBuffer>;

  /** Makes an empty set, or wraps the `buffer` of another one of the same length. */
  constructor(length: number, buffer?: SharedArrayBuffer) {
    if (!(length >= 0 && length <= 2 ** 31)) {
      throw new RangeError(`Cannot hold ${length} bits in one bitmap`);
    }
    const bytes = Math.ceil(length / 32) * 4;
    if (buffer !== undefined && buffer.byteLength !== bytes) {
      throw new RangeError(`Cannot read ${length} bits from ${buffer.byteLength} bytes`);
    }
    this.length = length;
    this.buffer = buffer ?? new SharedArrayBuffer(bytes);
    this.#words = new Int32Array(this.buffer);
  }

  /** Whether `index` is a member. */
  has(index: number): boolean {
    return (this.#words[index >>> 5]! & (1 << (index & 31))) !== 0;
  }

  /** Makes `index` a member; cheap where it is one already. */
  add(index: number): void {
    const bit = 1 << (index & 31);
    if ((this.#words[index >>> 5]! & bit) === 0) Atomics.or(this.#words, index >>> 5, bit);
  }

  /** Makes `index` no member. */
  delete(index: number): void {
    Atomics.and(this.#words, index >>> 5, ~(1 << (index & 31)));
  }

  /** Makes all of `[from, to)` members. */
  addRange(from: number, to: number): void {
    for (let at = from; at < to; at = nextWord(at)) {
      const mask = maskFrom(at, to);
      if ((this.#words[at >>> 5]! & mask) !== mask) Atomics.or(this.#words, at >>> 5, mask);
    }
  }

  /** Makes none of `[from, to)` members. */
  deleteRange(from: number, to: number): void {
    for (let at = from; at < to; at = nextWord(at)) {
      const mask = maskFrom(at, to);
      if ((this.#words[at >>> 5]! & mask) !== 0) Atomics.and(this.#words, at >>> 5, ~mask);
    }
  }

  /** Members there are; takes a step for each 32 numbers. */
  count(): number {
    let sum = 0;
    for (let word = 0; word < this.#words.length; word++) {
      const bits = this.#words[word]!;
      if (bits !== 0) sum += bits === -1 ? 32 : bitCount(bits);
    }
    return sum;
  }

  /** The first member from `from` on, or `limit` where there is none below it. */
  next(from: number, limit: number): number {
    if (from >= limit) return limit;
    return this.has(from) ? from : this.runEnd(from, limit);
  }

  /** The first index after `from` whose membership differs from that of `from`, or `limit`. */
  runEnd(from: number, limit: number): number {
    const member = this.has(from);
    const uniform = member ? -1 : 0;
    let at = from + 1;
    while (at < limit) {
      if ((at & 31) === 0 && this.#words[at >>> 5] === uniform) at = nextWord(at);
      else if (this.has(at) === member) at++;
      else return at;
    }
    return limit;
  }
}

function nextWord(index: number): number {
  return (Math.floor(index / 32) + 1) * 32;
}

/** How many bits of a word are set: sums of ever wider groups of bits, side by side. */
function bitCount(word: number): number {
  const pairs = word - ((word >>> 1) & 0x5555_5555);
  const fours = (pairs & 0x3333_3333) + ((pairs >>> 2) & 0x3333_3333);
  return Math.imul((fours + (fours >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

/** The bits of the word of `from` that lie in `[from, to)`. */
function maskFrom(from: number, to: number): number {
  const start = from & 31;
  const count = Math.min(32 - start, to - from);
  return count === 32 ? -1 : ((1 << count) - 1) << start;
}
