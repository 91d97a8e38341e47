/**
 * Large buffers out of slabs of memory that the kernel may hand out by pages of 2 MiB: to find 256 small
 * ones for a buffer of 1 MiB takes longer than to receive it, above all in a virtual machine, whose host
 * has to find them too.
 *
 * @module
 */
import { addressOf } from "../../ffi/libc.ts";
import { adviseHugePages } from "../../ffi/mman.ts";

/** glibc takes this much, and more, from the kernel each time, which knows that it is all zeroes. */
const SLAB_BYTES = 32 << 20;

/** Buffers of one size, of up to 32 MiB. */
export class Slabs {
  readonly #bytes: number;
  /** Buffers of a slab. */
  readonly #count: number;
  /** Of slabs that have any: the others belong to those who use their buffers. */
  readonly #free = new Map<ArrayBuffer, Uint8Array<ArrayBuffer>[]>();
  #freeCount = 0;

  /** Has no memory yet. */
  constructor(bytes: number) {
    this.#bytes = bytes;
    this.#count = Math.floor(SLAB_BYTES / bytes);
  }

  /** Whether this buffer lies in a slab, of this or another size. */
  static has({ buffer }: Uint8Array<ArrayBuffer>): boolean {
    return buffer.byteLength === SLAB_BYTES;
  }

  /** What is in it is not said. */
  take(): Uint8Array<ArrayBuffer> {
    for (const [slab, free] of this.#free) return this.#takeOf(slab, free);
    const slab = new ArrayBuffer(SLAB_BYTES);
    adviseHugePages(addressOf(new Uint8Array(slab)), SLAB_BYTES, "memory for large buffers");
    const free = Array.from({ length: this.#count }, (_, index) => this.#bufferOf(slab, index));
    this.#free.set(slab, free);
    this.#freeCount += free.length;
    return this.#takeOf(slab, free);
  }

  #takeOf(slab: ArrayBuffer, free: Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
    if (free.length === 1) this.#free.delete(slab);
    this.#freeCount--;
    return free.pop()!;
  }

  /**
   * Gives back a buffer, or a part of it. A slab nobody uses is dropped where half of another one is
   * free: what is needed at most does not have it made over and over.
   */
  give({ buffer: slab, byteOffset }: Uint8Array<ArrayBuffer>): void {
    const free = this.#free.get(slab) ?? [];
    free.push(this.#bufferOf(slab, Math.floor(byteOffset / this.#bytes)));
    this.#free.set(slab, free);
    this.#freeCount++;
    const others = this.#freeCount - free.length;
    if (free.length < this.#count || others < this.#count / 2) return;
    this.#free.delete(slab);
    this.#freeCount = others;
    // At once, not when it is collected.
    slab.transfer(0);
  }

  #bufferOf(slab: ArrayBuffer, index: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(slab, index * this.#bytes, this.#bytes);
  }
}
