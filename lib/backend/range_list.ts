/**
 * Ranges of bytes in ascending order, merged where they touch: what was written, what is to be
 * pushed.
 *
 * @module
 */

/** Bytes `[offset, offset + length)`. */
export interface ByteRange {
  /** Where it begins. */
  offset: number;
  /** Bytes, at least one. */
  length: number;
}

/** Numbers of a fresh list: eight ranges. */
const CAPACITY = 16;

/** A set of bytes as two numbers a range, which are read in place. */
export class RangeList implements Iterable<ByteRange> {
  /** Start and end of each range in turn. */
  #bounds = new Float64Array(CAPACITY);
  #count = 0;

  /** The list whose {@linkcode bounds} these are. */
  static fromBounds(bounds: Float64Array<ArrayBuffer>): RangeList {
    const list = new RangeList();
    for (let at = 0; at < bounds.length; at += 2) list.add(bounds[at]!, bounds[at + 1]!);
    return list;
  }

  /** How many ranges there are. */
  get count(): number {
    return this.#count;
  }

  /** How many bytes there are. */
  get byteLength(): number {
    let sum = 0;
    for (let index = 0; index < this.#count; index++) sum += this.end(index) - this.start(index);
    return sum;
  }

  /** Where range `index` begins. */
  start(index: number): number {
    return this.#bounds[index * 2]!;
  }

  /** The byte behind range `index`. */
  end(index: number): number {
    return this.#bounds[index * 2 + 1]!;
  }

  /** Start and end of each range in turn, as a copy that can be sent to another isolate. */
  bounds(): Float64Array<ArrayBuffer> {
    return this.#bounds.slice(0, this.#count * 2);
  }

  /** Adds bytes `[start, end)`; at once where they lie behind all others. */
  add(start: number, end: number): void {
    if (!(start < end)) return;
    const last = this.#count - 1;
    if (last < 0 || start > this.end(last)) this.#append(start, end);
    else if (start >= this.start(last)) this.#stretch(last, end);
    else this.#insert(start, end);
  }

  /** Adds all bytes of another list; its length in steps, and this one's where they interleave. */
  addAll(other: RangeList): void {
    if (other.#count === 0) return;
    if (this.#count === 0 || other.start(0) >= this.start(this.#count - 1)) {
      for (let index = 0; index < other.#count; index++) {
        this.add(other.start(index), other.end(index));
      }
      return;
    }
    const merged = new RangeList();
    for (let mine = 0, theirs = 0; mine < this.#count || theirs < other.#count;) {
      const takeMine = theirs === other.#count ||
        (mine < this.#count && this.start(mine) <= other.start(theirs));
      const index = takeMine ? mine++ : theirs++;
      const from = takeMine ? this : other;
      merged.add(from.start(index), from.end(index));
    }
    this.#bounds = merged.#bounds;
    this.#count = merged.#count;
  }

  /** Each range as an object; loops that must not allocate use {@linkcode start} and `end`. */
  *[Symbol.iterator](): Iterator<ByteRange> {
    for (let index = 0; index < this.#count; index++) {
      const offset = this.start(index);
      yield { offset, length: this.end(index) - offset };
    }
  }

  #append(start: number, end: number): void {
    const at = this.#count * 2;
    if (at === this.#bounds.length) {
      const larger = new Float64Array(at * 2);
      larger.set(this.#bounds);
      this.#bounds = larger;
    }
    this.#bounds[at] = start;
    this.#bounds[at + 1] = end;
    this.#count++;
  }

  #stretch(index: number, end: number): void {
    if (end > this.end(index)) this.#bounds[index * 2 + 1] = end;
  }

  /** Adds bytes that begin before the last range: they swallow those that they touch. */
  #insert(start: number, end: number): void {
    const first = this.#firstEndingFrom(start);
    let behind = first;
    while (behind < this.#count && this.start(behind) <= end) behind++;
    if (behind === first) {
      this.#append(0, 0);
      this.#bounds.copyWithin((first + 1) * 2, first * 2, (this.#count - 1) * 2);
      this.#bounds[first * 2] = start;
      this.#bounds[first * 2 + 1] = end;
      return;
    }
    const until = Math.max(end, this.end(behind - 1));
    this.#bounds[first * 2] = Math.min(start, this.start(first));
    this.#bounds[first * 2 + 1] = until;
    this.#bounds.copyWithin((first + 1) * 2, behind * 2, this.#count * 2);
    this.#count -= behind - first - 1;
  }

  /** The first range that ends at `offset` or behind it. */
  #firstEndingFrom(offset: number): number {
    let low = 0, high = this.#count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.end(middle) < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
