/**
 * Keeps dirty chunks where they are: of a cache that owns its region, and owes nobody anything.
 *
 * @module
 */
import type { CachedRegion } from "./cached_region.ts";
import type { DirtySink } from "./push.ts";

/** See the module. What it keeps is dirty for ever, so that the journal never lets go of it. */
export class Keeper implements DirtySink {
  readonly #region: CachedRegion;

  /** Keeps what is written to that region. */
  constructor(region: CachedRegion) {
    this.#region = region;
  }

  async sync(): Promise<void> {
    await this.#region.commit();
  }

  room(): undefined {
    return undefined;
  }

  stop(): void {}

  idle(): Promise<void> {
    return Promise.resolve();
  }
}
