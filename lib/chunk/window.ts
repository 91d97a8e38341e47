/**
 * A stage that shows a part of a region as one of its own.
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
import { Stage } from "./stage.ts";

/** What part of a region a window shows, in bytes. */
export interface WindowRange {
  /** Where it begins. */
  readonly offset: number;
  /** How long it is, over 0. */
  readonly size: number;
  /** See {@linkcode Backend.regionId}; that of the whole backend unless told. */
  readonly regionId?: Uint8Array;
}

/**
 * Shows a range of `backend`, which belongs to the answer and is closed with it. A flush is one of
 * the whole backend; so is its version.
 *
 * @throws {UsageError} the range is empty, lies outside, or is not whole blocks.
 */
export function windowOf(backend: Backend, { offset, size, regionId }: WindowRange): Backend {
  const { blockSize } = backend;
  const lies = Number.isSafeInteger(offset) && Number.isSafeInteger(size) && offset >= 0 &&
    size > 0 && size <= backend.size - offset;
  if (lies && offset % blockSize === 0 && size % blockSize === 0) {
    return new WindowStage(backend, offset, size, regionId);
  }
  throw new UsageError(
    `Cannot show ${size} bytes at offset ${offset} of a region of ${backend.size} bytes`,
    { hint: `give a range inside of it, of whole blocks of ${blockSize} bytes` },
  );
}

class WindowStage extends Stage {
  declare readonly regionId?: Uint8Array;
  readonly writesAtOnce?: boolean;
  readonly #offset: number;

  constructor(backend: Backend, offset: number, size: number, regionId: Uint8Array | undefined) {
    super(backend, backend.blockSize, size);
    if (regionId !== undefined) this.regionId = regionId;
    if (backend.writesAtOnce !== undefined) this.writesAtOnce = backend.writesAtOnce;
    this.#offset = offset;
  }

  get writesNow(): boolean {
    return this.backend.writesNow === true;
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    checkRange(this.size, offset, buffer.length);
    return this.backend.readAt(buffer, this.#offset + offset);
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    checkRange(this.size, offset, buffer.length);
    return this.backend.writeAt(buffer, this.#offset + offset);
  }

  protected zeroRange(offset: number, length: number, options?: ZeroOptions): Awaitable<void> {
    checkRange(this.size, offset, length);
    return this.backend.zero!(this.#offset + offset, length, options);
  }

  protected discardRange(offset: number, length: number): Awaitable<void> {
    checkRange(this.size, offset, length);
    return this.backend.discard!(this.#offset + offset, length);
  }

  protected findExtents(offset: number, length: number): Awaitable<Extent[]> {
    checkRange(this.size, offset, length);
    const found = this.backend.extents!(this.#offset + offset, length);
    return found instanceof Promise ? found.then((extents) => this.#shift(extents)) : this.#shift(
      found,
    );
  }

  #shift(extents: Extent[]): Extent[] {
    return extents.map((extent) => ({ ...extent, offset: extent.offset - this.#offset }));
  }
}
