/**
 * A backend in memory that takes whole blocks only, and answers at once or some turns later, in any
 * order. It throws where a caller breaks the alignment, and what is read while it is being changed
 * is not to be relied on.
 *
 * @module
 */
import {
  type Awaitable,
  type Backend,
  checkRange,
  type Extent,
  type ZeroOptions,
} from "../lib/backend/backend.ts";
import { UnsupportedError } from "../lib/backend/errors.ts";
import { type MemoryBackend, openMemory } from "../lib/backend/memory.ts";

/** How a {@linkcode BlockBackend} is. */
export interface BlockBackendOptions {
  /** Bytes; where it is no multiple of the block size, the last block ends with the region. */
  size: number;
  /** Bytes of a block. */
  blockSize: number;
  /** Seed of the delays; answers come at once unless told. */
  seed?: number;
  /** Whether zeroing is refused, as by a store that has no quick way. */
  zeroless?: boolean;
}

/** An operation under way. */
interface UnderWay {
  readonly start: number;
  readonly end: number;
  readonly changes: boolean;
  /** Whether it is a read, and a change of the same bytes was under way with it. */
  torn: boolean;
}

/** See the module. */
export class BlockBackend implements Backend {
  readonly size: number;
  readonly blockSize: number;
  readonly durable = false;
  readonly readOnly = false;
  /** Operations that it was asked for, by name. */
  readonly calls = { read: 0, write: 0, flush: 0, zero: 0, discard: 0 };
  readonly #store: MemoryBackend;
  readonly #zeroless: boolean;
  readonly #underWay = new Set<UnderWay>();
  #random: number | undefined;

  /** Makes a region of zeroes. */
  constructor(options: BlockBackendOptions) {
    this.size = options.size;
    this.blockSize = options.blockSize;
    this.#store = openMemory({ size: options.size });
    this.#random = options.seed;
    this.#zeroless = options.zeroless ?? false;
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.calls.read++;
    this.#check(offset, buffer.length);
    const read = this.#begin(offset, buffer.length, false);
    return this.#answer(() => {
      this.#store.readAt(buffer, offset);
      if (read.torn) buffer.fill(0xee);
    }, read);
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.calls.write++;
    this.#check(offset, buffer.length);
    const write = this.#begin(offset, buffer.length, true);
    return this.#answer(() => this.#store.writeAt(buffer, offset), write);
  }

  flush(): Awaitable<void> {
    this.calls.flush++;
    return this.#answer(() => this.#store.flush());
  }

  zero(offset: number, length: number, options?: ZeroOptions): Awaitable<void> {
    this.calls.zero++;
    this.#check(offset, length);
    return this.#answer(() => {
      if (this.#zeroless) throw new UnsupportedError("Cannot zero quickly");
      this.#store.zero(offset, length, options);
    }, this.#begin(offset, length, true));
  }

  discard(offset: number, length: number): Awaitable<void> {
    this.calls.discard++;
    this.#check(offset, length);
    const discard = this.#begin(offset, length, true);
    return this.#answer(() => this.#store.discard(offset, length), discard);
  }

  extents(offset: number, length: number): Awaitable<Extent[]> {
    this.#check(offset, length);
    return this.#answer(() => this.#store.extents(offset, length));
  }

  close(): void {
    this.#store.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#store[Symbol.asyncDispose]();
  }

  #check(offset: number, length: number): void {
    checkRange(this.size, offset, length);
    const end = offset + length;
    const aligned = offset % this.blockSize === 0 &&
      (end % this.blockSize === 0 || end === this.size);
    if (!aligned) throw new Error(`Misaligned: ${length} bytes at ${offset}`);
  }

  #begin(start: number, length: number, changes: boolean): UnderWay {
    const begun = { start, end: start + length, changes, torn: false };
    for (const other of this.#underWay) {
      if (other.start >= begun.end || begun.start >= other.end) continue;
      if (changes) other.torn = true;
      if (other.changes) begun.torn = true;
    }
    this.#underWay.add(begun);
    return begun;
  }

  #answer<T>(action: () => T, underWay?: UnderWay): Awaitable<T> {
    const finish = () => {
      if (underWay !== undefined) this.#underWay.delete(underWay);
      return action();
    };
    if (this.#random === undefined) return finish();
    // Park and Miller's generator.
    this.#random = this.#random * 48271 % 0x7fff_ffff;
    return this.#later(this.#random % 8, finish);
  }

  async #later<T>(turns: number, action: () => T): Promise<T> {
    for (let turn = 0; turn < turns; turn++) await Promise.resolve();
    return action();
  }
}
