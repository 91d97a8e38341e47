/**
 * Brings a region in without being asked: from where the last fault was on, and around.
 *
 * @module
 */
import type { Reactor } from "../net/reactor.ts";
import type { PagedRegion } from "./paged_region.ts";

/** How a {@linkcode Prefetcher} pulls. */
export interface PrefetchOptions {
  /** Whether the backend answers without a promise: then faults have their turn after each piece. */
  atOnce: boolean;
  /** Pulls pages ahead, and tells whether that went well. */
  pull(region: PagedRegion, from: number, to: number, done: (well: boolean) => void): void;
}

/** Bytes of one piece that this thread is busy with: what a fault may wait for. */
const PIECE_AT_ONCE = 64 << 10;
const PIECE_FROM_AFAR = 1 << 20;
/** Pieces in flight: enough for 8 GB/s at a millisecond, or 80 MB/s at a hundred. */
const IN_FLIGHT = 8;
/** How long nothing is pulled after a failure, in ms. */
const PAUSE_MS = 1000;
/** How often to look whether what faults pull is there, in ms. */
const LOOK_MS = 10;

/** See the module. */
export class Prefetcher {
  readonly #reactor: Reactor;
  readonly #regions: readonly PagedRegion[];
  readonly #options: PrefetchOptions;
  #region = 0;
  #page = 0;
  #inFlight = 0;
  #failed = false;
  #scheduled = false;
  #completed: PromiseWithResolvers<void> | undefined;
  #stopped = false;

  /** Begins in the next turn of the reactor. */
  constructor(reactor: Reactor, regions: readonly PagedRegion[], options: PrefetchOptions) {
    this.#reactor = reactor;
    this.#regions = regions;
    this.#options = options;
    this.#soon(0);
  }

  /** Goes on from the page of a fault. */
  faulted(region: PagedRegion, page: number): void {
    this.#region = this.#regions.indexOf(region);
    this.#page = page;
  }

  /** Settles when every page is in place, also those that faults pull. */
  get completed(): Promise<void> {
    this.#completed ??= Promise.withResolvers();
    this.#soon(0);
    return this.#completed.promise;
  }

  /** Pulls nothing more. */
  stop(): void {
    this.#stopped = true;
  }

  #soon(milliseconds: number): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#reactor.addDeadline(performance.now() + milliseconds, () => {
      this.#scheduled = false;
      this.#pull();
    });
  }

  #pull(): void {
    if (this.#stopped) return;
    if (this.#failed) {
      this.#failed = false;
      return this.#soon(PAUSE_MS);
    }
    const bytes = this.#options.atOnce ? PIECE_AT_ONCE : PIECE_FROM_AFAR;
    while (this.#inFlight < IN_FLIGHT) {
      const before = this.#inFlight;
      if (!this.#pullNext(bytes)) return this.#look();
      // What was answered at once took this thread: now it is the turn of faults.
      if (this.#inFlight === before) return this.#soon(0);
    }
  }

  /** Nobody has to pull any page: looks whether all are in place, where somebody waits for that. */
  #look(): void {
    if (this.#completed === undefined || this.#inFlight > 0) return;
    if (this.#regions.every((region) => region.isComplete)) this.#completed.resolve();
    else this.#soon(LOOK_MS);
  }

  /** Pulls the next piece; false where there is none. */
  #pullNext(bytes: number): boolean {
    for (let looked = 0; looked <= this.#regions.length; looked++) {
      const region = this.#regions[this.#region]!;
      const from = region.nextAbsent(this.#page);
      if (from < region.pages) {
        const to = region.absentTo(
          from,
          Math.min(from + Math.max(bytes / region.pageSize, 1), region.pages),
        );
        this.#page = to;
        this.#begin(region, from, to);
        return true;
      }
      this.#region = (this.#region + 1) % this.#regions.length;
      this.#page = 0;
    }
    return false;
  }

  #begin(region: PagedRegion, from: number, to: number): void {
    this.#inFlight++;
    this.#options.pull(region, from, to, (well) => {
      this.#inFlight--;
      this.#failed ||= !well;
      this.#soon(0);
    });
  }
}
