/**
 * A region whose bytes are known from the beginning and never change.
 *
 * @module
 */
import { type Backend, checkRange, type Extent } from "./backend.ts";
import { ClosedError, ReadOnlyError } from "./errors.ts";

/** Shows those bytes, which the caller must not change any more. */
export function openFixed(bytes: Uint8Array<ArrayBuffer>): Backend {
  return new FixedBackend(bytes);
}

class FixedBackend implements Backend {
  readonly size: number;
  readonly blockSize = 1;
  /** Nothing is ever written that could be lost. */
  readonly durable = true;
  readonly readOnly = true;
  readonly writesAtOnce = true;
  readonly restsBetweenCalls = true;
  readonly readsUrgently = true;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  #closed = false;

  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.#bytes = bytes;
    this.size = bytes.length;
  }

  readAt(buffer: Uint8Array, offset: number): void {
    this.#check(offset, buffer.length);
    buffer.set(this.#bytes.subarray(offset, offset + buffer.length));
  }

  writeAt(buffer: Uint8Array, offset: number): void {
    this.#check(offset, buffer.length);
    throw new ReadOnlyError();
  }

  flush(): void {
    this.#check(0, 0);
  }

  zero(offset: number, length: number): void {
    this.#check(offset, length);
    throw new ReadOnlyError();
  }

  discard(offset: number, length: number): void {
    this.#check(offset, length);
    throw new ReadOnlyError();
  }

  extents(offset: number, length: number): Extent[] {
    this.#check(offset, length);
    return length === 0 ? [] : [{ offset, length, hole: false, zero: false }];
  }

  close(): void {
    this.#closed = true;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new ClosedError("Cannot use a region of fixed bytes that was closed");
    checkRange(this.size, offset, length);
  }
}
