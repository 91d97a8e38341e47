/**
 * Digests of the chunks of a backend, made when they are asked for and kept until a chunk is written; and
 * one over all of them.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { Backend } from "../backend/backend.ts";
import { Bitmap } from "../backend/bitmap.ts";
import type { RangeList } from "../backend/range_list.ts";

/** Bytes of a chunk's digest: the first half of its SHA-256. */
export const CHUNK_DIGEST_BYTES = 16;

/** The digest of a content. */
export function digestOf(content: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha256").update(content).digest()).slice(0, CHUNK_DIGEST_BYTES);
}

/** Bytes of a root digest. */
export const ROOT_DIGEST_BYTES = 32;

/**
 * The root digest of a region: the SHA-256 of its size and that of its chunks, as little-endian u64, and
 * of the digests of all chunks in turn.
 */
export class RootDigest {
  readonly #hash = createHash("sha256");

  /** Of a region of so many bytes, in chunks of so many. */
  constructor({ size, chunkSize }: { size: number; chunkSize: number }) {
    this.#hash.update(new Uint8Array(new BigUint64Array([BigInt(size), BigInt(chunkSize)]).buffer));
  }

  /** The next chunks have these digests, one after the other. */
  add(digests: Uint8Array): void {
    this.#hash.update(digests);
  }

  /** All were added. */
  end(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#hash.digest());
  }
}

/** See the module. Takes 16 bytes and a bit a chunk. */
export class ChunkDigests {
  readonly #backend: Backend;
  readonly #chunkSize: number;
  readonly #count: number;
  readonly #known: Bitmap;
  readonly #digests: Uint8Array<ArrayBuffer>;
  readonly #content: Uint8Array<ArrayBuffer>;

  /** Knows none yet. */
  constructor(backend: Backend, chunkSize: number) {
    this.#backend = backend;
    this.#chunkSize = chunkSize;
    this.#count = Math.ceil(backend.size / chunkSize);
    this.#known = new Bitmap(this.#count);
    this.#digests = new Uint8Array(this.#count * CHUNK_DIGEST_BYTES);
    this.#content = new Uint8Array(Math.min(chunkSize, backend.size));
  }

  /** Ranges were written: their digests are to be made anew. */
  forget(ranges: RangeList): void {
    for (let index = 0; index < ranges.count; index++) {
      const from = Math.floor(ranges.start(index) / this.#chunkSize);
      this.#known.deleteRange(from, Math.ceil(ranges.end(index) / this.#chunkSize));
    }
  }

  /** The digests of chunks `[from, to)`, in turn. One call at a time. */
  async of(from: number, to: number): Promise<Uint8Array<ArrayBuffer>> {
    const end = Math.min(to, this.#count);
    for (let chunk = from; chunk < end; chunk++) {
      if (this.#known.has(chunk)) continue;
      // Before it is read: what is written meanwhile forgets it again.
      this.#known.add(chunk);
      const offset = chunk * this.#chunkSize;
      const length = Math.min(this.#chunkSize, this.#backend.size - offset);
      const content = this.#content.subarray(0, length);
      try {
        const reading = this.#backend.readAt(content, offset);
        if (reading !== undefined) await reading;
      } catch (error) {
        this.#known.delete(chunk);
        throw error;
      }
      this.#digests.set(digestOf(content), chunk * CHUNK_DIGEST_BYTES);
    }
    return this.#digests.slice(from * CHUNK_DIGEST_BYTES, end * CHUNK_DIGEST_BYTES);
  }
}
