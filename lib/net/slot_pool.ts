/**
 * Buffers at fixed addresses, in power-of-two sizes, reused so that serving allocates nothing in
 * the long run. Large free buffers give their pages back to the kernel.
 *
 * @module
 */
import { MADV, Mapping } from "../../ffi/mman.ts";
import type { Slot } from "./channel.ts";

const SMALLEST = 12; // 2^12: one page
const LARGEST = 26; // 2^26: 64 MiB
/** Bytes of free buffers that a pool keeps in memory. */
const KEEP_BYTES = 16 << 20;

interface PooledSlot extends Slot {
  readonly sizeClass: number;
  readonly mapping: Mapping;
  readonly whole: PooledSlot | undefined;
}

/** A pool of one isolate. */
export class SlotPool implements Disposable {
  /** Free buffers that are in memory, by size class; the next one last. */
  readonly #warm: PooledSlot[][] = [];
  /** Free buffers whose pages the kernel has. */
  readonly #cold: PooledSlot[][] = [];
  readonly #mappings: Mapping[] = [];
  #warmBytes = 0;
  #lent = 0;

  /** Makes an empty pool. */
  constructor() {
    for (let sizeClass = 0; sizeClass <= LARGEST; sizeClass++) {
      this.#warm.push([]);
      this.#cold.push([]);
    }
  }

  /** Buffers that were not given back yet. */
  get lent(): number {
    return this.#lent;
  }

  /** A buffer of exactly `length` bytes, with whatever content. Throws `RangeError` over 64 MiB. */
  acquire(length: number): Slot {
    const sizeClass = Math.max(SMALLEST, 32 - Math.clz32(Math.max(length, 1) - 1));
    if (sizeClass > LARGEST) throw new RangeError(`Cannot lend a buffer of ${length} bytes`);
    let whole = this.#warm[sizeClass]!.pop();
    if (whole !== undefined) this.#warmBytes -= 1 << sizeClass;
    else whole = this.#cold[sizeClass]!.pop() ?? this.#map(sizeClass);
    this.#lent++;
    if (whole.bytes.length === length) return whole;
    const bytes = whole.bytes.subarray(0, length);
    return { ...whole, bytes, whole } as PooledSlot;
  }

  /** Takes a buffer back; nobody may touch it any more. */
  release(slot: Slot): void {
    const { whole = slot as PooledSlot } = slot as PooledSlot;
    this.#lent--;
    const size = 1 << whole.sizeClass;
    if (this.#warmBytes + size > KEEP_BYTES) {
      whole.mapping.advise(MADV.DONTNEED);
      this.#cold[whole.sizeClass]!.push(whole);
    } else {
      this.#warmBytes += size;
      this.#warm[whole.sizeClass]!.push(whole);
    }
  }

  /** Unmaps all buffers, also those that are still lent. */
  [Symbol.dispose](): void {
    for (const mapping of this.#mappings) mapping.unmap();
    this.#mappings.length = 0;
    for (const free of [...this.#warm, ...this.#cold]) free.length = 0;
  }

  #map(sizeClass: number): PooledSlot {
    const mapping = Mapping.map({ length: 1 << sizeClass, subject: "a transfer buffer" });
    this.#mappings.push(mapping);
    return { bytes: mapping.bytes, address: mapping.address, sizeClass, mapping, whole: undefined };
  }
}
