/**
 * Absent chunks of which the cache holds some bytes: those that were written before the rest was
 * fetched. So a write never waits for the remote.
 *
 * @module
 */
import { RangeList } from "../backend/range_list.ts";

/** Bytes of the region that were written to absent chunks, by chunk. */
export class PartialChunks {
  readonly #written = new Map<number, RangeList>();
  #ranges = 0;

  /** How many chunks there are. */
  get count(): number {
    return this.#written.size;
  }

  /** How many separate ranges of bytes there are in all chunks: what they take of memory. */
  get rangeCount(): number {
    return this.#ranges;
  }

  /** The chunks, the one that was written first before the others. */
  chunks(): IterableIterator<number> {
    return this.#written.keys();
  }

  /** Whether something of a chunk was written. */
  has(chunk: number): boolean {
    return this.#written.has(chunk);
  }

  /** What of a chunk was written, as bytes of the region. */
  ranges(chunk: number): RangeList | undefined {
    return this.#written.get(chunk);
  }

  /** Adds what was written: bytes `[from, to)` of the region, all in that chunk. */
  add(chunk: number, from: number, to: number): void {
    const written = this.#written.get(chunk) ?? new RangeList();
    this.#ranges -= written.count;
    written.add(from, to);
    this.#ranges += written.count;
    this.#written.set(chunk, written);
  }

  /** Whether all of `[from, to)`, at least a byte and all in that chunk, was written. */
  covers(chunk: number, from: number, to: number): boolean {
    const written = this.#written.get(chunk);
    if (written === undefined) return false;
    for (let index = 0; index < written.count; index++) {
      if (written.start(index) <= from && to <= written.end(index)) return true;
    }
    return false;
  }

  /** What of `[from, to)`, in that chunk, was not written; each as a start and an end. */
  *gaps(chunk: number, from: number, to: number): Generator<[number, number]> {
    const written = this.#written.get(chunk);
    let at = from;
    for (let index = 0; index < (written?.count ?? 0); index++) {
      const start = written!.start(index);
      if (at < start) yield [at, start];
      at = written!.end(index);
    }
    if (at < to) yield [at, to];
  }

  /** Forgets a chunk, as it is local now. */
  delete(chunk: number): void {
    this.#ranges -= this.#written.get(chunk)?.count ?? 0;
    this.#written.delete(chunk);
  }
}
