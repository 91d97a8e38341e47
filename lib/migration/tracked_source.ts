/**
 * What a leecher has been told by its source: since when it notices writes, up to which generation
 * they have been heard of, and the digests of chunks.
 *
 * @module
 */
import { errorCode } from "../backend/errors.ts";
import { RangeList } from "../backend/range_list.ts";
import { CHUNK_DIGEST_BYTES } from "../chunk/digests.ts";
import type { SeederClient } from "./seeder_client.ts";
import { givenElsewhere } from "./target_driver.ts";

/** What the source said when it began to notice writes. */
export interface Tracked {
  /** Another one whenever something may have gone unnoticed. */
  trackId: Uint8Array;
  /** The highest epoch that it has used. */
  epoch: number;
  /** Nothing is to be heard of up to it. */
  generation: number;
}

/** Chunks whose digests are asked for at a time. */
const DIGESTS_AT_ONCE = 64;

/** See the module. */
export class TrackedSource {
  readonly #client: SeederClient;
  readonly #region: { readonly chunkSize: number; readonly chunks: number };
  #tracked: Tracked;
  /** Whether what was written before it began to notice writes is known, or was compared. */
  #isCompared = true;

  /** Follows the source from what it said on, in a region of so many chunks. */
  constructor(
    client: SeederClient,
    region: { chunkSize: number; chunks: number },
    tracked: Tracked,
  ) {
    this.#client = client;
    this.#region = region;
    this.#tracked = tracked;
  }

  /** What a SUSPEND is about. */
  get tracked(): Readonly<Tracked> {
    return this.#tracked;
  }

  /** A set was told by an offer: it is not to be told again. */
  heard(generation: number): void {
    this.#tracked = { ...this.#tracked, generation };
  }

  /**
   * What was written since it was asked last. Undefined where the source cannot tell, as it began
   * anew or forgot about this side: it notices writes again, and all is to be compared with it,
   * until {@linkcode compared} is told.
   *
   * @throws {FencedError} the source gave the region to somebody else.
   */
  async dirty(): Promise<RangeList | undefined> {
    if (!this.#isCompared) return undefined;
    const all = new RangeList();
    for (;;) {
      const { trackId, generation } = this.#tracked;
      try {
        const told = await this.#client.dirty({ trackId, generation });
        this.heard(told.generation);
        all.addAll(told.ranges);
        if (!told.more) return all;
      } catch (error) {
        if (errorCode(error) === "EPERM") throw givenElsewhere();
        if (errorCode(error) !== "ESTALE") throw error;
        await this.track();
        return undefined;
      }
    }
  }

  /** Everything was compared with the source since it began to notice writes. */
  compared(): void {
    this.#isCompared = true;
  }

  /** Has writes noticed anew. */
  async track(): Promise<void> {
    const { chunkSize } = this.#region;
    this.#isCompared = false;
    const { trackId, epoch, generation } = await this.#client.track({ chunkSize });
    this.#tracked = { trackId, generation, epoch: Math.max(this.#tracked.epoch, epoch) };
  }

  /**
   * Digests of all chunks in turn, those from `from` on. Throws once `signal` is aborted: who was
   * not given all of them must not take it that he was.
   */
  async eachDigests(
    action: (from: number, digests: Uint8Array[]) => Promise<unknown>,
    signal: AbortSignal,
  ): Promise<void> {
    const { chunks } = this.#region;
    for (let chunk = 0; chunk < chunks;) {
      signal.throwIfAborted();
      const count = Math.min(DIGESTS_AT_ONCE, chunks - chunk);
      const { digests } = await this.#client.digests({ chunk, count }, { signal });
      const each = Array.from(
        { length: digests.length / CHUNK_DIGEST_BYTES },
        (_, index) =>
          digests.subarray(index * CHUNK_DIGEST_BYTES, (index + 1) * CHUNK_DIGEST_BYTES),
      );
      await action(chunk, each);
      chunk += each.length;
    }
  }
}
