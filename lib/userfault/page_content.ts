/**
 * The content of pages on its way from a backend into memory: where it lies, and which of its pages
 * are zeroes.
 *
 * @module
 */
import type { Backend } from "../backend/backend.ts";
import type { Slot } from "../net/channel.ts";
import type { SlotPool } from "../net/slot_pool.ts";
import type { PagedRegion } from "./paged_region.ts";

/** Content of a run of pages, which C can read in place. */
export interface PageContent {
  /** Where it lies, for C. */
  address: number;
  /** The memory it lies in, as words. */
  words: Uint32Array;
  /** Where in `words` it begins. */
  word: number;
  /** What is given back to the pool when it is in place; nothing where the backend lends it. */
  slot: Slot | undefined;
}

/** Reads pages of one backend into buffers that are used again. */
export class PageReader {
  readonly #backend: Backend;
  readonly #pool: SlotPool;
  /** The backend's own memory, where it lies in this process. */
  readonly #lent: PageContent | undefined;
  /** Where that lies. */
  readonly #address: number = 0;

  /** Reads from `backend` into buffers of `pool`. */
  constructor(backend: Backend, pool: SlotPool) {
    this.#backend = backend;
    this.#pool = pool;
    if (backend.memory === undefined) return;
    const { bytes, address } = backend.memory;
    this.#address = address;
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, Math.floor(bytes.length / 4));
    this.#lent = { address: 0, words, word: 0, slot: undefined };
  }

  /**
   * The content of pages `[from, to)`, zeroes beyond the backend's end: at once or as a promise, as
   * the backend answers. Throws, or rejects with, what the backend does. What is answered at once
   * is to be used before the next call.
   */
  read(region: PagedRegion, from: number, to: number): PageContent | Promise<PageContent> {
    const offset = region.offset + from * region.pageSize;
    const length = (to - from) * region.pageSize;
    const inside = Math.min(length, Math.max(this.#backend.size - offset, 0));
    if (this.#lent !== undefined && inside === length && offset % 4 === 0) {
      this.#lent.address = this.#address + offset;
      this.#lent.word = offset / 4;
      return this.#lent;
    }
    return this.#readInto(this.#pool.acquire(length), offset, inside);
  }

  /** Gives the buffer back. */
  release(content: PageContent): void {
    if (content.slot !== undefined) this.#pool.release(content.slot);
  }

  #readInto(slot: Slot, offset: number, inside: number): PageContent | Promise<PageContent> {
    const { bytes, address } = slot;
    const wanted = inside === bytes.length ? bytes : bytes.subarray(0, inside);
    if (inside < bytes.length) bytes.fill(0, inside);
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    const content = { address, words, word: 0, slot };
    let pending: void | Promise<void>;
    try {
      pending = inside === 0 ? undefined : this.#backend.readAt(wanted, offset);
    } catch (error) {
      this.#pool.release(slot);
      throw error;
    }
    if (pending === undefined) return content;
    return pending.then(() => content, (error) => {
      this.#pool.release(slot);
      throw error;
    });
  }
}

/** Whether `count` words from `at` on are all 0; mostly one look says no. */
export function areZero(words: Uint32Array, at: number, count: number): boolean {
  const end = at + count;
  for (let word = at; word < end; word++) if (words[word] !== 0) return false;
  return true;
}
