/**
 * Knowing which pages of memory were written: the contract of the trackers, and how all of a run is
 * collected without holding the thread for long.
 *
 * The order that loses nothing: a page is made clean first, and only then is its content read. A
 * write before that is in the content; a write behind it makes the page dirty again, and it is in
 * the next collection.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import type { Awaitable } from "../backend/backend.ts";
import { RangeList } from "../backend/range_list.ts";

/**
 * How writes are noticed, best first:
 *
 * - `async-wp`: the kernel notes them by itself in the page tables, which are scanned (Linux 6.7).
 * - `wp-faults`: the first write to a clean page is a fault that a handler resolves (Linux 5.7).
 * - `compare`: all memory is compared with a copy of it (anywhere).
 */
export type TrackingMethod = "async-wp" | "wp-faults" | "compare";

/** Memory of this process whose writes are tracked. */
export interface TrackedRange {
  /** Its first byte, on a page boundary. */
  address: number;
  /** Bytes, a multiple of `pageSize`. */
  size: number;
  /** Bytes of a page of it: that of the kernel, or of huge pages. */
  pageSize: number;
}

/** Which pages of one run of memory were written since they were last collected. */
export interface WriteTracker extends Disposable {
  /** How it notices. */
  readonly method: TrackingMethod;
  /** Bytes that are tracked. */
  readonly size: number;
  /**
   * Where the content of collected ranges is to be read: the address of the memory itself, or, for
   * `compare`, of a copy as it was when they were collected.
   */
  readonly contentAddress: number;
  /**
   * Adds to `written` what was written from byte `from` on, makes it clean, and answers where it
   * stopped: after a step of a millisecond or so. Go on from there until `size`. Ranges are whole
   * pages, as offsets from the memory's first byte. Read their content after the call.
   *
   * Where it throws (`SystemError`), nothing that was written in this step is lost for the next.
   */
  collect(written: RangeList, from: number): number;
  /** Makes ranges dirty again that were collected, and could not be pushed. */
  restore(ranges: RangeList): void;
}

/** Collects for this long before others have their turn, in ms. */
const TURN_MS = 1;

/**
 * Collects all that was written, with a pause every millisecond: by default a turn of the event
 * loop. What is written while it goes on may be in this collection or in the next one.
 *
 * Throws what `collect` and `pause` throw; what was collected before is dirty again then.
 */
export async function collectWritten(
  tracker: WriteTracker,
  pause: () => Awaitable<void> = eventLoopTurn,
): Promise<RangeList> {
  const written = new RangeList();
  try {
    let since = performance.now();
    for (let at = 0; at < tracker.size;) {
      at = tracker.collect(written, at);
      if (performance.now() - since < TURN_MS || at >= tracker.size) continue;
      await pause();
      since = performance.now();
    }
    return written;
  } catch (error) {
    tracker.restore(written);
    throw error;
  }
}

/** Lets the isolate's event loop deliver what came. */
export function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
