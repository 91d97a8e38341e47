/**
 * A stage that refuses what is not aligned to chunks, or carries too much at once: a server puts it
 * before a store that only ever is to see whole chunks, whatever its clients ask.
 *
 * @module
 */
import {
  type Awaitable,
  type Backend,
  checkRange,
  type Extent,
  type ZeroOptions,
} from "../backend/backend.ts";
import { UsageError } from "../backend/errors.ts";
import { formatSize } from "../backend/size.ts";
import { Stage } from "./stage.ts";

/** What {@linkcode guardBackend} lets through. */
export interface GuardOptions {
  /** Bytes of a chunk, a multiple of the backend's block size: what offsets and lengths need. */
  chunkSize: number;
  /** Bytes of the largest read or write, at least a chunk; one chunk unless told. */
  maxLength?: number;
}

/**
 * Guards `backend`, which belongs to the answer and is closed with it. The `blockSize` of the answer
 * is the chunk size; where the region is no multiple of it, the last chunk ends with the region.
 *
 * Its calls throw {@linkcode UsageError} for what is not aligned, and for reads and writes over
 * `maxLength`; nothing has happened then. Zeroes, discards and extents carry no bytes, and may be
 * as long as the region. So does this function, for options that no call could satisfy.
 */
export function guardBackend(backend: Backend, options: GuardOptions): Backend {
  const { chunkSize, maxLength = chunkSize } = options;
  const { blockSize } = backend;
  if (!Number.isSafeInteger(chunkSize) || chunkSize <= 0 || chunkSize % blockSize !== 0) {
    throw new UsageError(`Cannot guard chunks of ${chunkSize} bytes`, {
      hint: `the backend takes multiples of ${blockSize} bytes`,
    });
  }
  if (!(maxLength >= chunkSize)) {
    throw new UsageError(`Cannot guard requests of at most ${maxLength} bytes`, {
      hint: `a chunk alone has ${chunkSize} bytes`,
    });
  }
  return new GuardStage(backend, chunkSize, maxLength);
}

class GuardStage extends Stage {
  readonly writesAtOnce?: boolean;
  readonly #maxLength: number;

  constructor(backend: Backend, chunkSize: number, maxLength: number) {
    super(backend, chunkSize);
    const { writesAtOnce } = backend;
    if (writesAtOnce !== undefined) this.writesAtOnce = writesAtOnce;
    this.#maxLength = maxLength;
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#checkAligned("read", offset, buffer.length);
    this.#checkLength("read", buffer.length);
    return this.backend.readAt(buffer, offset);
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#checkAligned("write", offset, buffer.length);
    this.#checkLength("write", buffer.length);
    return this.backend.writeAt(buffer, offset);
  }

  protected zeroRange(offset: number, length: number, options?: ZeroOptions): Awaitable<void> {
    this.#checkAligned("zero", offset, length);
    return this.backend.zero!(offset, length, options);
  }

  protected discardRange(offset: number, length: number): Awaitable<void> {
    this.#checkAligned("discard", offset, length);
    return this.backend.discard!(offset, length);
  }

  protected findExtents(offset: number, length: number): Awaitable<Extent[]> {
    this.#checkAligned("find the extents of", offset, length);
    return this.backend.extents!(offset, length);
  }

  #checkAligned(what: string, offset: number, length: number): void {
    checkRange(this.size, offset, length);
    if (length === 0) return;
    const end = offset + length;
    const aligned = offset % this.blockSize === 0 &&
      (end % this.blockSize === 0 || end === this.size);
    if (aligned) return;
    throw new UsageError(`Cannot ${what} ${length} bytes at offset ${offset}`, {
      hint: `ask for whole chunks of ${formatSize(this.blockSize)}`,
    });
  }

  #checkLength(what: string, length: number): void {
    if (length <= this.#maxLength) return;
    throw new UsageError(`Cannot ${what} ${length} bytes at once`, {
      hint: `ask for at most ${formatSize(this.#maxLength)}`,
    });
  }
}
