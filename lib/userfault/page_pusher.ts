/**
 * Writes the dirty pages of memory back to its backend, in large pieces of which several are in
 * flight.
 *
 * Pages are protected again before they are read here, so that a write which comes meanwhile makes
 * them dirty for the next push. Whatever was written before a push began is durable in the backend
 * when it ends, unless it throws: then what failed is dirty again, and where it was the flush that
 * failed, all that it was to make durable.
 *
 * @module
 */
import { MemoryView } from "../../ffi/mman.ts";
import { copyOut } from "../../ffi/string.ts";
import type { Backend } from "../backend/backend.ts";
import { RangeList } from "../backend/range_list.ts";
import type { Reactor } from "../net/reactor.ts";
import type { SlotPool } from "../net/slot_pool.ts";
import type { PagedRegion } from "./paged_region.ts";
import type { UserfaultStatistics } from "./statistics.ts";
import { collectWritten, type WriteTracker } from "../tracking/write_tracker.ts";

const PIECE = 1 << 20;
/** For so long in a row faults may wait, in ms. */
const TURN_MS = 1;
/** Pieces in flight where the backend is far away. */
const IN_FLIGHT = 8;

/** Pushes one region. */
export class PagePusher implements Disposable {
  readonly #reactor: Reactor;
  readonly #pool: SlotPool;
  readonly #backend: Backend;
  readonly #region: PagedRegion;
  readonly #tracker: WriteTracker;
  readonly #statistics: UserfaultStatistics;
  readonly #memory: MemoryView;
  /** What the backend took and did not flush yet. */
  #unflushed = new RangeList();
  #last: Promise<void> = Promise.resolve();
  /** When faults had their turn. */
  #turnedAt = 0;

  /** Pushes what `tracker` finds written in `region`; counts it in `statistics`. */
  constructor(
    reactor: Reactor,
    pool: SlotPool,
    backend: Backend,
    region: PagedRegion,
    tracker: WriteTracker,
    statistics: UserfaultStatistics,
  ) {
    this.#reactor = reactor;
    this.#pool = pool;
    this.#backend = backend;
    this.#region = region;
    this.#tracker = tracker;
    this.#statistics = statistics;
    const inside = Math.min(region.size, backend.size - region.offset);
    this.#memory = new MemoryView(tracker.contentAddress, inside);
  }

  /** Pushes all that was written before and flushes, once the push before this one is over. */
  push(): Promise<void> {
    const pushing = this.#last.then(() => this.#push());
    this.#last = pushing.catch(() => {});
    return pushing;
  }

  /** Forgets what was written. */
  [Symbol.dispose](): void {
    this.#tracker[Symbol.dispose]();
  }

  async #push(): Promise<void> {
    const written = await collectWritten(this.#tracker, () => this.#pause());
    const failed = new RangeList();
    const flying = new Set<Promise<void>>();
    let failure: unknown;
    for (const { from, to } of this.#pieces(written)) {
      if (failure !== undefined) {
        failed.add(from, to);
        continue;
      }
      const writing = this.#write(from, to).then(() => {
        this.#unflushed.add(from, to);
      }, (error) => {
        failure ??= error;
        failed.add(from, to);
      }).finally(() => flying.delete(writing));
      flying.add(writing);
      await (flying.size < IN_FLIGHT ? this.#pause() : Promise.race(flying));
    }
    await Promise.all(flying);
    if (failure === undefined) return await this.#flush();
    this.#tracker.restore(failed);
    throw failure;
  }

  async #flush(): Promise<void> {
    const flushed = this.#unflushed;
    if (flushed.count === 0) return;
    this.#unflushed = new RangeList();
    try {
      await this.#backend.flush();
    } catch (error) {
      // The backend may have lost any of it.
      this.#tracker.restore(flushed);
      throw error;
    }
  }

  /** The ranges in pieces, without what lies beyond the backend's end or is poisoned. */
  *#pieces(written: RangeList): Generator<{ from: number; to: number }> {
    for (let index = 0; index < written.count; index++) {
      const end = Math.min(written.end(index), this.#memory.length);
      for (let from = written.start(index); from < end;) {
        const to = this.#region.readableTo(from, Math.min(from + PIECE, end));
        if (to > from) yield { from, to };
        from = Math.max(to, from + (to > from ? 0 : this.#region.pageSize));
      }
    }
  }

  async #write(from: number, to: number): Promise<void> {
    const length = to - from, offset = this.#region.offset + from;
    if (this.#backend.writesAtOnce || this.#backend.writesNow) {
      this.#backend.writeAt(this.#memory.bytes.subarray(from, to), offset);
    } else {
      // The memory may change while it is on its way, and a checksum would not fit any more.
      const still = this.#pool.acquire(length);
      try {
        copyOut(still.bytes, this.#memory.address + from);
        await this.#backend.writeAt(still.bytes, offset);
      } finally {
        this.#pool.release(still);
      }
    }
    this.#statistics.pushedBytes += length;
  }

  /** Lets faults have their turn, where it is time for that. */
  async #pause(): Promise<void> {
    if (performance.now() - this.#turnedAt < TURN_MS) return;
    await this.#turn();
    this.#turnedAt = performance.now();
  }

  #turn(): Promise<void> {
    return new Promise((resolve) => void this.#reactor.addDeadline(performance.now(), resolve));
  }
}
