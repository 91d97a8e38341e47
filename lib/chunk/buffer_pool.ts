/**
 * Buffers for requests, which are used again: making one costs about as much as filling it.
 *
 * @module
 */
import { Slabs } from "./slabs.ts";

/** A pool whose largest buffers have so many bytes takes those from slabs. */
const LARGE_BYTES = 512 << 10;
/** Other free buffers are kept up to so many bytes. */
const KEPT_BYTES = 32 << 20;

/**
 * See the module. A buffer has a power of two bytes, or the most there may be, so that a small request
 * does not pay for the largest one.
 */
export class BufferPool {
  readonly #most: number;
  readonly #slabs: Slabs | undefined;
  /** By the logarithm of their bytes, rounded up. */
  readonly #free: Uint8Array<ArrayBuffer>[][] = Array.from({ length: 33 }, () => []);
  #kept = 0;

  /** Makes a pool of buffers of up to `most` bytes. */
  constructor(most: number) {
    this.#most = most;
    if (most >= LARGE_BYTES) this.#slabs = new Slabs(most);
  }

  /** A buffer of so many bytes, at most the pool's; what is in it is not said. */
  take(length: number): Uint8Array<ArrayBuffer> {
    if (this.#slabs !== undefined && length > this.#most / 2) {
      const whole = this.#slabs.take();
      return length === whole.length ? whole : whole.subarray(0, length);
    }
    const bits = logarithm(length);
    const free = this.#free[bits]!.pop();
    if (free !== undefined) this.#kept -= free.length;
    const whole = free ?? new Uint8Array(Math.min(2 ** bits, this.#most));
    return length === whole.length ? whole : whole.subarray(0, length);
  }

  /** Gives a buffer back that {@linkcode take} handed out and nobody uses any more. */
  give(buffer: Uint8Array<ArrayBuffer>): void {
    if (Slabs.has(buffer)) return this.#slabs?.give(buffer);
    const whole = new Uint8Array(buffer.buffer);
    const bits = logarithm(whole.length);
    if (this.#kept + whole.length > KEPT_BYTES) this.#dropOthers(bits);
    if (this.#kept + whole.length > KEPT_BYTES) return;
    this.#kept += whole.length;
    this.#free[bits]!.push(whole);
  }

  /** Requests of another size than lately may not come again. */
  #dropOthers(bits: number): void {
    for (const [others, free] of this.#free.entries()) if (others !== bits) free.length = 0;
    this.#kept = this.#free[bits]!.reduce((sum, { length }) => sum + length, 0);
  }
}

/** The smallest power of two that is no less, as its exponent. */
function logarithm(length: number): number {
  return length <= 1 ? 0 : 32 - Math.clz32(length - 1);
}
