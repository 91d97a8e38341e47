/**
 * Tracks writes to memory that nobody pages in: by whichever method this host has.
 *
 * @module
 */
import { openUserfault, UFFD_FEATURE } from "../../ffi/userfault_open.ts";
import { fillError, UFFD_REGISTER, Userfault } from "../../ffi/userfaultfd.ts";
import type { Awaitable } from "../backend/backend.ts";
import type { RangeList } from "../backend/range_list.ts";
import { AsyncTracker } from "./async_tracker.ts";
import { CompareTracker } from "./compare_tracker.ts";
import { bestTracking } from "./tracking_probe.ts";
import { TrackingWorkerLink } from "./tracking_worker_link.ts";
import {
  collectWritten,
  eventLoopTurn,
  type TrackedRange,
  type TrackingMethod,
} from "./write_tracker.ts";

/** How {@linkcode trackRange} tracks. */
export interface TrackRangeOptions {
  /** The method; the best that is there unless told. */
  method?: TrackingMethod | undefined;
  /** As in `openUserfault`. */
  userModeOnly?: boolean | undefined;
}

/** Memory whose writes are tracked. One call at a time: each waits for the one before. */
export interface RangeTracking extends AsyncDisposable {
  /** How it notices. */
  readonly method: TrackingMethod;
  /** The copy that the content of collected ranges is read from; nothing where that is the memory. */
  readonly copy: Uint8Array<ArrayBuffer> | undefined;
  /**
   * Collects what was written since the last time. `check` is called before memory is looked at, and
   * again after each pause; what it throws ends the collection, and nothing is lost.
   */
  collect(check: () => void): Promise<RangeList>;
  /** Makes ranges dirty again. */
  restore(ranges: RangeList): Awaitable<void>;
  /** Tracks on with memory that has grown to `size` bytes; what is new counts as written. */
  grow(size: number): Awaitable<void>;
}

/**
 * Begins to track what is written to mapped, anonymous memory of this process, by any thread. The
 * caller keeps it mapped until the tracking is disposed of.
 *
 * Throws what `openUserfault` throws where the method is not there, `SystemError` or `TelemapError`
 * where the memory cannot be registered (EBUSY, EINVAL), and `SystemError` where there is no memory
 * for a copy (ENOMEM).
 */
export async function trackRange(
  range: TrackedRange,
  options: TrackRangeOptions = {},
): Promise<RangeTracking> {
  const { method = bestTracking(), userModeOnly } = options;
  switch (method) {
    case "async-wp":
      return new AsyncTracking(range, userModeOnly);
    case "wp-faults":
      return new FaultTracking(await TrackingWorkerLink.start(range, userModeOnly));
    case "compare":
      return await CompareTracking.start(range);
  }
}

class AsyncTracking implements RangeTracking {
  readonly method = "async-wp";
  readonly copy = undefined;
  readonly #range: TrackedRange;
  readonly #uffd: Userfault;
  readonly #tracker: AsyncTracker;

  constructor(range: TrackedRange, userModeOnly: boolean | undefined) {
    // With WP_ASYNC the kernel resolves faults itself: user mode restricts nothing.
    const required = UFFD_FEATURE.WP_ASYNC | UFFD_FEATURE.WP_UNPOPULATED;
    const { fd } = openUserfault(
      userModeOnly === undefined ? { required } : { required, userModeOnly },
    );
    this.#range = { ...range };
    this.#uffd = new Userfault(fd);
    try {
      this.#arm(0, range.size);
      this.#tracker = new AsyncTracker(range, { pagedIn: false });
    } catch (error) {
      this.#uffd[Symbol.dispose]();
      throw error;
    }
  }

  async collect(check: () => void): Promise<RangeList> {
    check();
    return await collectWritten(this.#tracker, () => turnThen(check));
  }

  restore(ranges: RangeList): void {
    this.#tracker.restore(ranges);
  }

  grow(size: number): void {
    this.#arm(this.#range.size, size);
    this.#tracker.grow(size);
    this.#range.size = size;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#tracker[Symbol.dispose]();
    this.#uffd[Symbol.dispose]();
    return Promise.resolve();
  }

  /** Registers and protects the memory from byte `from` to `to`. */
  #arm(from: number, to: number): void {
    const start = this.#range.address + from;
    this.#uffd.register(start, to - from, UFFD_REGISTER.WP);
    const result = this.#uffd.writeProtect(start, to - from);
    if (result < 0) throw fillError("write-protect pages", start, result);
  }
}

class FaultTracking implements RangeTracking {
  readonly method = "wp-faults";
  readonly copy = undefined;
  readonly #link: TrackingWorkerLink;

  constructor(link: TrackingWorkerLink) {
    this.#link = link;
  }

  async collect(check: () => void): Promise<RangeList> {
    check();
    return await this.#link.collect();
  }

  async restore(ranges: RangeList): Promise<void> {
    await this.#link.restore(ranges);
  }

  async grow(size: number): Promise<void> {
    await this.#link.grow(size);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#link[Symbol.asyncDispose]();
  }
}

class CompareTracking implements RangeTracking {
  readonly method = "compare";
  readonly #tracker: CompareTracker;

  static async start(range: TrackedRange): Promise<CompareTracking> {
    const tracker = new CompareTracker(range);
    try {
      // What is there now becomes the copy.
      await collectWritten(tracker);
    } catch (error) {
      tracker[Symbol.dispose]();
      throw error;
    }
    return new CompareTracking(tracker);
  }

  private constructor(tracker: CompareTracker) {
    this.#tracker = tracker;
  }

  get copy(): Uint8Array<ArrayBuffer> {
    return this.#tracker.copy;
  }

  async collect(check: () => void): Promise<RangeList> {
    check();
    return await collectWritten(this.#tracker, () => turnThen(check));
  }

  restore(ranges: RangeList): void {
    this.#tracker.restore(ranges);
  }

  grow(size: number): void {
    this.#tracker.grow(size);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#tracker[Symbol.dispose]();
    return Promise.resolve();
  }
}

async function turnThen(check: () => void): Promise<void> {
  await eventLoopTurn();
  check();
}
