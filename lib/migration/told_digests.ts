/**
 * The digests that a seeder tells of its region: of chunks, and once nobody writes any more of all.
 *
 * @module
 */
import type { Backend } from "../backend/backend.ts";
import type { RangeList } from "../backend/range_list.ts";
import { ChunkDigests, RootDigest } from "../chunk/digests.ts";

/** Chunks that are read at a time: who writes, or asks for others, should not wait for long. */
const AT_ONCE = 64;

/** See the module. */
export class ToldDigests {
  readonly #region: Backend;
  readonly #chunkSize: number;
  readonly #chunks: ChunkDigests;
  /** One run of chunks after the other. */
  #reading: Promise<unknown> = Promise.resolve();
  #root: Promise<Uint8Array> | undefined;

  /** Of a region in chunks of so many bytes. */
  constructor(region: Backend, chunkSize: number) {
    this.#region = region;
    this.#chunkSize = chunkSize;
    this.#chunks = new ChunkDigests(region, chunkSize);
  }

  /** Ranges were written. */
  forget(ranges: RangeList): void {
    this.#chunks.forget(ranges);
  }

  /** Of so many chunks, or of fewer at the end of the region. */
  of(chunk: number, count: number): Promise<Uint8Array> {
    const digests = this.#reading.then(() => this.#chunks.of(chunk, chunk + count));
    this.#reading = digests.catch(() => {});
    return digests;
  }

  /** The root digest, of a region that is not written any more. */
  root(): Promise<Uint8Array> {
    this.#root ??= this.#all().catch((error) => {
      this.#root = undefined;
      throw error;
    });
    return this.#root;
  }

  async #all(): Promise<Uint8Array> {
    const { size } = this.#region, chunkSize = this.#chunkSize;
    const root = new RootDigest({ size, chunkSize });
    for (let chunk = 0; chunk * chunkSize < size; chunk += AT_ONCE) {
      root.add(await this.of(chunk, AT_ONCE));
    }
    return root.end();
  }
}
