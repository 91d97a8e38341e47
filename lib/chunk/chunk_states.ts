/**
 * What the cache knows of each chunk of a region: six bits, and what may follow what.
 *
 * A chunk is *absent* (the remote alone has it), *clean* (the cache has the same content) or
 * *dirty* (the remote has not got it yet). Beside that an absent one may be being pulled, or have
 * failed to be; a dirty one may be being pushed, and be written *again* meanwhile.
 *
 * @module
 */
import { Bitmap } from "../backend/bitmap.ts";
import { UsageError } from "../backend/errors.ts";

/** The smallest and the largest chunk, in bytes. */
export const CHUNK_SIZE = { LEAST: 4 << 10, MOST: 32 << 20 } as const;

/** Chunks of a region; as many as a bitmap can hold. */
const CHUNKS_MOST = 2 ** 31;

/**
 * The chunks of a region of `size` bytes, the last of which may be shorter. Throws
 * {@linkcode UsageError} where the chunk size is no multiple of 4 KiB up to 32 MiB, or too small for
 * the region.
 */
export function countChunks(size: number, chunkSize: number): number {
  const { LEAST, MOST } = CHUNK_SIZE;
  if (!(chunkSize >= LEAST && chunkSize <= MOST && chunkSize % LEAST === 0)) {
    throw new UsageError(`Cannot use chunks of ${chunkSize} bytes`, {
      hint: "the chunk size is a multiple of 4 KiB, and at most 32 MiB",
    });
  }
  const chunks = Math.ceil(size / chunkSize);
  if (chunks > CHUNKS_MOST) {
    throw new UsageError(`Cannot keep track of ${chunks} chunks`, { hint: "use larger chunks" });
  }
  return chunks;
}

/** The bits that outlive the process where there is a journal. */
export interface LastingBits {
  /** Chunks whose content in the cache is valid. */
  readonly local: Bitmap;
  /** Chunks of them whose content the remote has not got. */
  readonly dirty: Bitmap;
}

/** The states of all chunks of a region; see the module. Numbers are indexes of chunks. */
export class ChunkStates {
  /** Chunks whose content in the cache is valid. */
  readonly local: Bitmap;
  /** Chunks of them that are owed to the remote. */
  readonly dirty: Bitmap;
  /** Absent chunks that are on their way from the remote. */
  readonly pulling: Bitmap;
  /** Dirty chunks of which a copy is on its way to the remote, or there but not flushed yet. */
  readonly pushing: Bitmap;
  /** Chunks of these that were written since they were copied. */
  readonly again: Bitmap;
  /** Absent chunks which could not be pulled when that was tried last. */
  readonly failed: Bitmap;
  /** How many there are. */
  readonly count: number;
  #localCount: number;
  #dirtyCount: number;

  /** Takes the lasting bits over: they change with the states. */
  constructor({ local, dirty }: LastingBits) {
    this.count = local.length;
    this.local = local;
    this.dirty = dirty;
    this.pulling = new Bitmap(this.count);
    this.pushing = new Bitmap(this.count);
    this.again = new Bitmap(this.count);
    this.failed = new Bitmap(this.count);
    this.#localCount = local.count();
    this.#dirtyCount = dirty.count();
  }

  /** Chunks that are clean or dirty. */
  get localCount(): number {
    return this.#localCount;
  }

  /** Chunks that are dirty. */
  get dirtyCount(): number {
    return this.#dirtyCount;
  }

  /** Whether all chunks are clean or dirty. */
  get complete(): boolean {
    return this.#localCount === this.count;
  }

  /** Whether all of `[from, to)` are clean or dirty. */
  allLocal(from: number, to: number): boolean {
    return this.#all(this.local, from, to);
  }

  /** Whether all of `[from, to)` are dirty. */
  allDirty(from: number, to: number): boolean {
    return this.#all(this.dirty, from, to);
  }

  /** An absent chunk becomes clean, as its content arrived. */
  arrived(chunk: number): void {
    this.local.add(chunk);
    this.failed.delete(chunk);
    this.#localCount++;
  }

  /** A local chunk is about to be written, or an absent one was written as a whole. */
  written(chunk: number): void {
    if (!this.local.has(chunk)) this.arrived(chunk);
    if (!this.dirty.has(chunk)) {
      this.dirty.add(chunk);
      this.#dirtyCount++;
    }
    if (this.pushing.has(chunk)) this.again.add(chunk);
  }

  /** Dirty chunks `[from, to)` are copied now, to be pushed. */
  copied(from: number, to: number): void {
    this.pushing.addRange(from, to);
    this.again.deleteRange(from, to);
  }

  /** The remote has flushed the copies of `[from, to)`: those not written again become clean. */
  pushed(from: number, to: number): void {
    for (let chunk = from; chunk < to; chunk++) {
      if (this.again.has(chunk)) continue;
      this.dirty.delete(chunk);
      this.#dirtyCount--;
    }
    this.notPushed(from, to);
  }

  /** The copies of `[from, to)` may not be at the remote: the chunks stay dirty. */
  notPushed(from: number, to: number): void {
    this.pushing.deleteRange(from, to);
    this.again.deleteRange(from, to);
  }

  /** The first absent chunk from `from` on, or `limit`. */
  nextAbsent(from: number, limit: number): number {
    if (from >= limit) return limit;
    return this.local.has(from) ? this.local.runEnd(from, limit) : from;
  }

  #all(bits: Bitmap, from: number, to: number): boolean {
    for (let chunk = from; chunk < to; chunk++) if (!bits.has(chunk)) return false;
    return true;
  }
}
