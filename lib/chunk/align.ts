/**
 * A stage that serves any range of a backend which takes whole blocks only: what a write leaves of
 * its first and last block is read before, and written back with it.
 *
 * Writes that share a block without overlapping disturb each other as little as they would in an
 * array of bytes: reading, changing and writing back a block happens while no other change of that
 * block is under way. Whole blocks go straight through.
 *
 * @module
 */
import {
  type Awaitable,
  type Backend,
  checkRange,
  checkWritable,
  type Extent,
  type ZeroOptions,
} from "../backend/backend.ts";
import { RangeLock } from "./range_lock.ts";
import { Stage } from "./stage.ts";

/**
 * Serves ranges of any alignment from `backend`, which belongs to the answer and is closed with it;
 * one that needs no alignment is the answer itself. Where the region is no multiple of the block
 * size, its last block ends with the region.
 */
export function alignBackend(backend: Backend): Backend {
  return backend.blockSize === 1 ? backend : new AlignStage(backend);
}

class AlignStage extends Stage {
  readonly memory?: NonNullable<Backend["memory"]>;
  readonly #block: number;
  readonly #lock = new RangeLock();

  constructor(backend: Backend) {
    super(backend, 1);
    this.#block = backend.blockSize;
    if (backend.memory !== undefined) this.memory = backend.memory;
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    checkRange(this.size, offset, buffer.length);
    const end = offset + buffer.length;
    if (buffer.length === 0) return this.backend.readAt(buffer, 0);
    if (this.#aligned(offset, end)) return this.backend.readAt(buffer, offset);
    const start = this.#floor(offset), stop = this.#ceil(end);
    return this.#lock.shared(start, stop, () => {
      const blocks = new Uint8Array(stop - start);
      const take = () => buffer.set(blocks.subarray(offset - start, end - start));
      return after(this.backend.readAt(blocks, start), take);
    });
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    checkRange(this.size, offset, buffer.length);
    checkWritable(this);
    if (buffer.length === 0) return this.backend.writeAt(buffer, 0);
    const end = offset + buffer.length;
    if (this.#aligned(offset, end)) {
      return this.#whole(offset, end, () => this.backend.writeAt(buffer, offset));
    }
    const start = this.#floor(offset), stop = this.#ceil(end);
    return this.#lock.exclusive(start, stop, () => this.#merge(buffer, offset, start, stop));
  }

  protected zeroRange(offset: number, length: number, options: ZeroOptions = {}): Awaitable<void> {
    checkRange(this.size, offset, length);
    checkWritable(this);
    const zero = (from: number, to: number) => this.backend.zero!(from, to - from, options);
    if (length === 0) return zero(0, 0);
    const end = offset + length;
    if (this.#aligned(offset, end)) return this.#whole(offset, end, () => zero(offset, end));
    const inside = this.#inside(offset, end);
    return this.#lock.exclusive(this.#floor(offset), this.#ceil(end), () => {
      if (inside === undefined) return this.#mergeZeroes(offset, end);
      // First what may be refused: nothing is changed then.
      return after(zero(inside.start, inside.stop), () =>
        both(
          () => this.#mergeZeroes(offset, inside.start),
          () => this.#mergeZeroes(inside.stop, end),
        ));
    });
  }

  /** Lets go of the blocks that lie wholly inside; the others stay as they are. */
  protected discardRange(offset: number, length: number): Awaitable<void> {
    checkRange(this.size, offset, length);
    checkWritable(this);
    const inside = this.#inside(offset, offset + length);
    if (inside === undefined) return this.backend.discard!(0, 0);
    const { start, stop } = inside;
    return this.#whole(start, stop, () => this.backend.discard!(start, stop - start));
  }

  protected findExtents(offset: number, length: number): Awaitable<Extent[]> {
    checkRange(this.size, offset, length);
    if (length === 0) return this.backend.extents!(0, 0);
    const end = offset + length;
    const start = this.#floor(offset);
    const found = this.backend.extents!(start, this.#ceil(end) - start);
    const cut = (extents: Extent[]) => cutExtents(extents, offset, end);
    return found instanceof Promise ? found.then(cut) : cut(found);
  }

  /** A change of whole blocks, which keeps others off them as long as it is under way. */
  #whole(start: number, stop: number, change: () => Awaitable<void>): Awaitable<void> {
    if (this.#lock.size > 0) return this.#lock.shared(start, stop, change);
    const result = change();
    return result === undefined ? result : this.#lock.shared(start, stop, () => result);
  }

  /** Writes the blocks from `start` to `stop` with some bytes changed; they are held exclusively. */
  #merge(bytes: Uint8Array, offset: number, start: number, stop: number): Awaitable<void> {
    const end = offset + bytes.length;
    const blocks = new Uint8Array(stop - start);
    const read = (from: number, to: number) =>
      this.backend.readAt(blocks.subarray(from - start, to - start), from);
    const last = this.#floor(end - 1);
    const first = Math.min(start + this.#block, stop);
    const readEnds = offset === start
      ? read(last, stop)
      : end === stop || last === start
      ? read(start, first)
      : both(() => read(start, first), () => read(last, stop));
    return after(readEnds, () => {
      blocks.set(bytes, offset - start);
      return this.backend.writeAt(blocks, start);
    });
  }

  /** Zeroes bytes of one block, or of two that adjoin; they are held exclusively. */
  #mergeZeroes(offset: number, end: number): Awaitable<void> {
    if (offset === end) return;
    const zeroes = new Uint8Array(end - offset);
    return this.#merge(zeroes, offset, this.#floor(offset), this.#ceil(end));
  }

  /** The blocks that lie wholly in a range, if there are any. */
  #inside(offset: number, end: number): { start: number; stop: number } | undefined {
    const start = this.#ceil(offset);
    const stop = end === this.size ? end : this.#floor(end);
    return start < stop ? { start, stop } : undefined;
  }

  #aligned(offset: number, end: number): boolean {
    return offset % this.#block === 0 && (end % this.#block === 0 || end === this.size);
  }

  #floor(offset: number): number {
    return offset - offset % this.#block;
  }

  #ceil(offset: number): number {
    const over = offset % this.#block;
    return over === 0 ? offset : Math.min(offset - over + this.#block, this.size);
  }
}

/** Goes on when something is done, at once where it is done already. */
function after(first: Awaitable<void>, next: () => Awaitable<void>): Awaitable<void> {
  return first === undefined ? next() : first.then(next);
}

/** Does two things, side by side unless the first one is done at once. */
function both(first: () => Awaitable<void>, second: () => Awaitable<void>): Awaitable<void> {
  const begun = first();
  if (begun === undefined) return second();
  const other = (async () => await second())();
  return Promise.all([begun, other]).then(() => {});
}

/** What of the extents lies in a range; an extent need not begin or end with a block. */
function cutExtents(extents: Extent[], offset: number, end: number): Extent[] {
  return extents.flatMap((extent) => {
    const from = Math.max(extent.offset, offset);
    const to = Math.min(extent.offset + extent.length, end);
    return from < to ? [{ ...extent, offset: from, length: to - from }] : [];
  });
}
