/**
 * Several backends as one region: they lie end to end, each from the next multiple of an alignment.
 * What lies between them reads as zeroes, and cannot be written.
 *
 * @module
 */
import {
  type Awaitable,
  type Backend,
  checkRange,
  type Extent,
  extentsOf,
  writeZeroes,
  type ZeroOptions,
} from "./backend.ts";
import { ClosedError, ReadOnlyError, UnsupportedError, UsageError } from "./errors.ts";
import { appendExtent } from "./extents.ts";
import { layOut } from "./layout.ts";
import { settleAll } from "./settle.ts";

/**
 * Joins backends, which belong to the answer and are closed with it. Each takes any range: see
 * `alignBackend` for one that does not.
 *
 * A change that reaches a gap or a part that may only be read changes nothing; one that fails in a
 * later part may have changed those before. A flush reaches those parts that were written.
 *
 * @throws {UsageError} a part takes only whole blocks, or as of `layOut`.
 */
export function joinBackends(backends: readonly Backend[], alignment: number): Backend {
  const blocks = backends.find(({ blockSize }) => blockSize !== 1);
  if (blocks !== undefined) {
    throw new UsageError(`Cannot join a backend that takes blocks of ${blocks.blockSize} bytes`, {
      hint: "put alignBackend over it",
    });
  }
  return new JoinedBackend(backends, alignment);
}

/** One of the backends, and where it lies. */
class Part {
  readonly backend: Backend;
  readonly offset: number;
  readonly end: number;
  /** A change was acknowledged. */
  readonly changed = () => void this.#changes++;
  /** From 1: what was written before it was joined was not seen. */
  #changes = 1;
  #flushed = 0;

  constructor(backend: Backend, offset: number) {
    this.backend = backend;
    this.offset = offset;
    this.end = offset + backend.size;
  }

  async flush(): Promise<void> {
    const covered = this.#changes;
    if (covered <= this.#flushed) return;
    await this.backend.flush();
    this.#flushed = Math.max(this.#flushed, covered);
  }
}

/** What of a range lies in one part, or between two. */
interface Piece {
  readonly part: Part | undefined;
  readonly from: number;
  readonly to: number;
}

class JoinedBackend implements Backend {
  readonly size: number;
  readonly blockSize = 1;
  readonly durable: boolean;
  readonly readOnly: boolean;
  readonly restsBetweenCalls: boolean;
  readonly readsUrgently: boolean;
  readonly zero?: NonNullable<Backend["zero"]>;
  readonly discard?: NonNullable<Backend["discard"]>;
  readonly #parts: readonly Part[];
  #closed = false;

  constructor(backends: readonly Backend[], alignment: number) {
    const { offsets, size } = layOut(backends.map(({ size }) => size), alignment);
    this.size = size;
    this.#parts = backends.map((backend, index) => new Part(backend, offsets[index]!));
    this.durable = backends.every(({ durable }) => durable);
    this.readOnly = backends.every(({ readOnly }) => readOnly);
    this.restsBetweenCalls = backends.every((backend) => backend.restsBetweenCalls === true);
    this.readsUrgently = backends.every((backend) => backend.readsUrgently === true);
    if (backends.every(({ zero }) => zero !== undefined)) this.zero = this.#zero;
    if (backends.some(({ discard }) => discard !== undefined)) this.discard = this.#discard;
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#check(offset, buffer.length);
    const part = this.#partAt(offset);
    if (offset + buffer.length <= part.end) {
      return part.backend.readAt(buffer, offset - part.offset);
    }
    return this.#readAcross(buffer, offset);
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#check(offset, buffer.length);
    const part = this.#partAt(offset);
    if (offset + buffer.length > part.end) return this.#writeAcross(buffer, offset);
    const written = part.backend.writeAt(buffer, offset - part.offset);
    if (written instanceof Promise) return written.then(part.changed);
    part.changed();
  }

  async flush(): Promise<void> {
    this.#check(0, 0);
    await settleAll(this.#parts.map((part) => part.flush()));
  }

  async extents(offset: number, length: number): Promise<Extent[]> {
    this.#check(offset, length);
    const extents: Extent[] = [];
    for (const { part, from, to } of this.#pieces(offset, length)) {
      if (part === undefined) {
        appendExtent(extents, { offset: from, length: to - from, hole: true, zero: true });
        continue;
      }
      for (const extent of await extentsOf(part.backend, from - part.offset, to - from)) {
        appendExtent(extents, { ...extent, offset: part.offset + extent.offset });
      }
    }
    return extents;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await settleAll(this.#parts.map(async ({ backend }) => await backend.close()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #readAcross(buffer: Uint8Array, offset: number): Promise<void> {
    for (const { part, from, to } of this.#pieces(offset, buffer.length)) {
      const bytes = buffer.subarray(from - offset, to - offset);
      if (part === undefined) bytes.fill(0);
      else await part.backend.readAt(bytes, from - part.offset);
    }
  }

  async #writeAcross(buffer: Uint8Array, offset: number): Promise<void> {
    const pieces = this.#pieces(offset, buffer.length);
    if (pieces.some(({ part }) => part === undefined || part.backend.readOnly)) {
      throw new ReadOnlyError("Cannot write what lies between the parts of a joined region");
    }
    for (const { part, from, to } of pieces) {
      await part!.backend.writeAt(buffer.subarray(from - offset, to - offset), from - part!.offset);
      part!.changed();
    }
  }

  async #zero(offset: number, length: number, options: ZeroOptions = {}): Promise<void> {
    let isChanged = false;
    for (const { part, at, bytes } of this.#changeable(offset, length)) {
      try {
        await part.backend.zero!(at, bytes, options);
      } catch (error) {
        // Once something was changed, it has to be done to the end in any way.
        if (!isChanged || !(error instanceof UnsupportedError)) throw error;
        await writeZeroes(part.backend, at, bytes, options);
      }
      part.changed();
      isChanged = true;
    }
  }

  async #discard(offset: number, length: number): Promise<void> {
    for (const { part, at, bytes } of this.#changeable(offset, length)) {
      await part.backend.discard?.(at, bytes);
      part.changed();
    }
  }

  /** What of a range is to be changed, as ranges of the parts; gaps are zeroes already. */
  #changeable(offset: number, length: number): { part: Part; at: number; bytes: number }[] {
    this.#check(offset, length);
    if (this.readOnly) throw new ReadOnlyError();
    const pieces = this.#pieces(offset, length);
    if (pieces.some(({ part }) => part?.backend.readOnly)) throw new ReadOnlyError();
    return pieces.flatMap(({ part, from, to }) =>
      part === undefined ? [] : [{ part, at: from - part.offset, bytes: to - from }]
    );
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new ClosedError("Cannot use a joined region that was closed");
    checkRange(this.size, offset, length);
  }

  /** The last part that begins at or before a byte. */
  #partAt(offset: number): Part {
    return this.#parts[this.#indexAt(offset)]!;
  }

  #indexAt(offset: number): number {
    let low = 0, high = this.#parts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#parts[middle]!.offset <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #pieces(offset: number, length: number): Piece[] {
    const pieces: Piece[] = [], end = offset + length;
    for (let at = offset, index = this.#indexAt(offset); at < end; index++) {
      const part = this.#parts[index]!, next = this.#parts[index + 1]?.offset ?? this.size;
      const inside = Math.min(part.end, end), behind = Math.min(next, end);
      if (at < inside) pieces.push({ part, from: at, to: inside });
      at = Math.max(at, inside);
      if (at < behind) pieces.push({ part: undefined, from: at, to: behind });
      at = behind;
    }
    return pieces;
  }
}
