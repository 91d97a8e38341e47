/**
 * Buffers that are used again, as new ones of a MiB cost as much to zero as to fill.
 *
 * @module
 */

/** Free buffers are kept up to so many bytes. */
const KEPT_BYTES = 32 << 20;

/** Hands out buffers of up to one size. */
export class BufferPool {
  readonly #size: number;
  readonly #most: number;
  readonly #free: Uint8Array<ArrayBuffer>[] = [];

  /** Makes a pool of buffers of `size` bytes. */
  constructor(size: number) {
    this.#size = size;
    this.#most = Math.max(Math.floor(KEPT_BYTES / size), 1);
  }

  /** A buffer of so many bytes, at most the pool's size; what is in it is not said. */
  take(length: number): Uint8Array<ArrayBuffer> {
    const whole = this.#free.pop() ?? new Uint8Array(this.#size);
    return length === this.#size ? whole : whole.subarray(0, length);
  }

  /** Gives a buffer back that {@linkcode take} handed out and nobody uses any more. */
  give(buffer: Uint8Array<ArrayBuffer>): void {
    if (this.#free.length < this.#most) this.#free.push(new Uint8Array(buffer.buffer));
  }
}
