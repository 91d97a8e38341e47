/**
 * What the cache knows of each chunk of a region, in a few bits, and what may follow what.
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

/**
 * The states of all chunks of a region; see the module. Numbers are indexes of chunks. It takes four
 * bits a chunk: the two that last, and two whose meaning depends on these.
 */
export class ChunkStates {
  /** Chunks whose content in the cache is valid. */
  readonly local: Bitmap;
  /** Chunks of them that are owed to the remote. */
  readonly dirty: Bitmap;
  /** How many there are. */
  readonly count: number;
  /** Absent chunks that are being pulled, and dirty ones that are being pushed. */
  readonly #moving: Bitmap;
  /** Absent chunks that failed to be pulled, and dirty ones that were written again. */
  readonly #marked: Bitmap;
  #localCount: number;
  #dirtyCount: number;

  /** Takes the lasting bits over: they change with the states. */
  constructor({ local, dirty }: LastingBits) {
    this.count = local.length;
    this.local = local;
    this.dirty = dirty;
    this.#moving = new Bitmap(this.count);
    this.#marked = new Bitmap(this.count);
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
    return this.nextAbsent(from, to) === to;
  }

  /** Whether all of `[from, to)` are dirty. */
  allDirty(from: number, to: number): boolean {
    for (let chunk = from; chunk < to; chunk++) if (!this.dirty.has(chunk)) return false;
    return true;
  }

  /** The first absent chunk from `from` on, or `limit`. */
  nextAbsent(from: number, limit: number): number {
    if (from >= limit) return limit;
    return this.local.has(from) ? this.local.runEnd(from, limit) : from;
  }

  /** Whether a chunk is absent and on its way from the remote. */
  isPulling(chunk: number): boolean {
    return this.#moving.has(chunk) && !this.local.has(chunk);
  }

  /** Whether a chunk is absent and could not be pulled when that was tried last. */
  hasFailed(chunk: number): boolean {
    return this.#marked.has(chunk) && !this.local.has(chunk);
  }

  /** Whether a copy of a dirty chunk is on its way to the remote, or there but not flushed yet. */
  isPushing(chunk: number): boolean {
    return this.#moving.has(chunk) && this.local.has(chunk);
  }

  /** Absent chunks `[from, to)` are on their way from the remote. */
  pulling(from: number, to: number): void {
    this.#moving.addRange(from, to);
  }

  /** Chunks `[from, to)` are no longer on their way, whether they arrived or not. */
  notPulling(from: number, to: number): void {
    this.#unmarkAbsent(this.#moving, from, to);
  }

  /** An absent chunk could not be pulled. */
  failed(chunk: number): void {
    if (!this.local.has(chunk)) this.#marked.add(chunk);
  }

  /** Any absent chunk may be pulled again. */
  forgetFailures(): void {
    this.#unmarkAbsent(this.#marked, 0, this.count);
  }

  /** An absent chunk becomes clean, as its content arrived. */
  arrived(chunk: number): void {
    this.#moving.delete(chunk);
    this.#marked.delete(chunk);
    this.local.add(chunk);
    this.#localCount++;
  }

  /** A local chunk is about to be written, or an absent one was written as a whole. */
  written(chunk: number): void {
    if (!this.local.has(chunk)) this.arrived(chunk);
    if (!this.dirty.has(chunk)) {
      this.dirty.add(chunk);
      this.#dirtyCount++;
    }
    if (this.#moving.has(chunk)) this.#marked.add(chunk);
  }

  /** Dirty chunks `[from, to)` are copied now, to be pushed. */
  copied(from: number, to: number): void {
    this.#moving.addRange(from, to);
    this.#marked.deleteRange(from, to);
  }

  /** The remote has flushed the copies of `[from, to)`: those not written again become clean. */
  pushed(from: number, to: number): void {
    for (let chunk = from; chunk < to; chunk++) {
      if (this.#marked.has(chunk)) continue;
      this.dirty.delete(chunk);
      this.#dirtyCount--;
    }
    this.notPushed(from, to);
  }

  /** A local chunk becomes absent: what the cache holds of it is out of date. */
  dropped(chunk: number): void {
    this.local.delete(chunk);
    this.#localCount--;
    if (this.dirty.has(chunk)) this.#dirtyCount--;
    this.dirty.delete(chunk);
    this.#moving.delete(chunk);
    this.#marked.delete(chunk);
  }

  /** The copies of `[from, to)` may not be at the remote: the chunks stay dirty. */
  notPushed(from: number, to: number): void {
    this.#moving.deleteRange(from, to);
    this.#marked.deleteRange(from, to);
  }

  #unmarkAbsent(bits: Bitmap, from: number, to: number): void {
    for (let chunk = bits.next(from, to); chunk < to; chunk = bits.next(chunk + 1, to)) {
      if (!this.local.has(chunk)) bits.delete(chunk);
    }
  }
}
