/**
 * Bytes in the memory of this process, which several Workers may serve at once.
 *
 * @module
 */
import { adviseAt, adviseHugePages, MADV, Mapping, MemoryView } from "../../ffi/mman.ts";
import { type Backend, checkRange, type Extent, type SharedBackend } from "./backend.ts";
import type { ZeroOptions } from "./backend.ts";
import { Bitmap } from "./bitmap.ts";
import { ClosedError, ReadOnlyError, UsageError } from "./errors.ts";
import { appendExtent } from "./extents.ts";

/** Bytes to a bit of what was ever written; a multiple of every page size there is. */
const BLOCK = 65536;

/** What {@linkcode SharedBackend} tells of memory. */
export type SharedMemory = Extract<SharedBackend, { kind: "memory" }>;

/** How {@linkcode openMemory} opens. */
export interface OpenMemoryOptions {
  /** Bytes of the region, over 0. Memory is taken up as it is written. */
  size: number;
}

/**
 * Opens a new region of zeroes in memory. Throws {@linkcode UsageError} on a size that is no
 * count of bytes over 0, and `SystemError` (ENOMEM) where the address space has no room for it.
 */
export function openMemory(options: OpenMemoryOptions): MemoryBackend {
  const { size } = options;
  if (!Number.isSafeInteger(size) || size <= 0) {
    throw new UsageError(`Cannot open a memory region of ${size} bytes`, {
      hint: "give it a whole number of bytes over 0",
    });
  }
  const mapping = Mapping.map({ length: size, subject: `a memory region of ${size} bytes` });
  return new MemoryBackend({
    address: mapping.address,
    bytes: mapping.bytes,
    readOnly: false,
    written: new Bitmap(Math.ceil(size / BLOCK)),
    release: () => mapping.unmap(),
  });
}

/**
 * Opens the region that another Worker of this process opened and still holds open; closing it
 * here leaves it open there.
 */
export function openSharedMemory(shared: SharedMemory): MemoryBackend {
  const view = new MemoryView(shared.address, shared.size);
  return new MemoryBackend({
    address: view.address,
    bytes: view.bytes,
    readOnly: shared.readOnly,
    written: new Bitmap(Math.ceil(shared.size / BLOCK), shared.written),
    release: () => view[Symbol.dispose](),
  });
}

/** What a {@linkcode MemoryBackend} is made of. */
interface Region {
  address: number;
  bytes: Uint8Array<ArrayBuffer>;
  readOnly: boolean;
  /** Blocks that may hold something else than zeroes. */
  written: Bitmap;
  /** Empties `bytes`, and gives the memory back where it is ours. */
  release(): void;
}

/** A region in memory. Every method answers at once; nothing survives the process. */
export class MemoryBackend implements Backend {
  readonly size: number;
  readonly blockSize = 1;
  readonly durable = false;
  readonly writesAtOnce = true;
  readonly restsBetweenCalls = true;
  readonly readOnly: boolean;
  /** The region itself. Write to it by the methods only; `bytes` is empty after close. */
  readonly memory: { readonly bytes: Uint8Array<ArrayBuffer>; readonly address: number };
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #written: Bitmap;
  readonly #release: () => void;
  #closed = false;

  /** Made by {@linkcode openMemory} and {@linkcode openSharedMemory}. */
  constructor(region: Region) {
    this.size = region.bytes.length;
    this.readOnly = region.readOnly;
    this.memory = { bytes: region.bytes, address: region.address };
    this.#bytes = region.bytes;
    this.#written = region.written;
    this.#release = region.release;
  }

  readAt(buffer: Uint8Array, offset: number): void {
    this.#check(offset, buffer.length);
    buffer.set(this.#bytes.subarray(offset, offset + buffer.length));
  }

  writeAt(buffer: Uint8Array, offset: number): void {
    this.#checkWrite(offset, buffer.length);
    if (buffer.length === 0) return;
    this.#markWritten(offset, buffer.length);
    this.#bytes.set(buffer, offset);
  }

  placeAt(offset: number, length: number): Uint8Array<ArrayBuffer> {
    this.#checkWrite(offset, length);
    if (length > 0) this.#markWritten(offset, length);
    return this.#bytes.subarray(offset, offset + length);
  }

  /** All of it is going to be written: it is taken up by pages of 2 MiB, where the kernel has those. */
  expectAll(): void {
    adviseHugePages(this.memory.address, this.size, "a memory region");
  }

  flush(): void {
    if (this.#closed) throw closedError();
  }

  zero(offset: number, length: number, options: ZeroOptions = {}): void {
    this.#checkWrite(offset, length);
    if (length === 0) return;
    const end = offset + length;
    if (options.allocate) {
      this.#written.addRange(Math.floor(offset / BLOCK), Math.ceil(end / BLOCK));
      this.#bytes.fill(0, offset, end);
      return;
    }
    const firstWhole = Math.ceil(offset / BLOCK);
    const endWhole = end === this.size ? this.#written.length : Math.floor(end / BLOCK);
    if (firstWhole >= endWhole) {
      const split = Math.min(firstWhole * BLOCK, end);
      this.#fillWritten(offset, split);
      this.#fillWritten(split, end);
      return;
    }
    const start = firstWhole * BLOCK;
    const stop = Math.min(endWhole * BLOCK, this.size);
    this.#fillWritten(offset, start);
    adviseAt(this.memory.address + start, stop - start, MADV.DONTNEED, "a memory region");
    this.#written.deleteRange(firstWhole, endWhole);
    this.#fillWritten(stop, end);
  }

  discard(offset: number, length: number): void {
    this.zero(offset, length);
  }

  extents(offset: number, length: number): Extent[] {
    this.#check(offset, length);
    const extents: Extent[] = [];
    const end = offset + length;
    for (let at = offset; at < end;) {
      const block = Math.floor(at / BLOCK);
      const runEnd = this.#written.runEnd(block, Math.ceil(end / BLOCK));
      const stop = Math.min(runEnd * BLOCK, end);
      const hole = !this.#written.has(block);
      appendExtent(extents, { offset: at, length: stop - at, hole, zero: hole });
      at = stop;
    }
    return extents;
  }

  share(): SharedMemory {
    if (this.#closed) throw closedError();
    const { size, readOnly } = this;
    const written = this.#written.buffer;
    return { kind: "memory", address: this.memory.address, size, readOnly, written };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#release();
  }

  /** As {@linkcode close}. */
  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  #markWritten(offset: number, length: number): void {
    const first = Math.floor(offset / BLOCK);
    const last = Math.floor((offset + length - 1) / BLOCK);
    if (first === last) this.#written.add(first);
    else this.#written.addRange(first, last + 1);
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw closedError();
    checkRange(this.size, offset, length);
  }

  #checkWrite(offset: number, length: number): void {
    this.#check(offset, length);
    if (this.readOnly) throw new ReadOnlyError();
  }

  /** Zeroes a range inside one block; a block that was never written is left untouched by memory. */
  #fillWritten(from: number, to: number): void {
    if (from < to && this.#written.has(Math.floor(from / BLOCK))) this.#bytes.fill(0, from, to);
  }
}

function closedError(): ClosedError {
  return new ClosedError("Cannot use the memory region as it was closed");
}
