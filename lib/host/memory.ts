/**
 * The memory of this process that a host Worker pages in from a backend and pushes back to it.
 *
 * @module
 */
import type { Backend } from "../backend/backend.ts";
import { UsageError } from "../backend/errors.ts";
import type { Reactor } from "../net/reactor.ts";
import type { SlotPool } from "../net/slot_pool.ts";
import { AsyncTracker } from "../tracking/async_tracker.ts";
import { FaultTracker } from "../tracking/fault_tracker.ts";
import { PagePusher } from "../userfault/page_pusher.ts";
import { PagedCompareTracker } from "../userfault/paged_compare_tracker.ts";
import type { PagedRegion } from "../userfault/paged_region.ts";
import { UserfaultServer } from "../userfault/server.ts";
import type { TrackingMethod, WriteTracker } from "../tracking/write_tracker.ts";
import type { MemoryStatistics } from "./memory_statistics.ts";
import type { MemoryOptions } from "./protocol.ts";

interface Served {
  server: UserfaultServer;
  /** Missing where the memory may only be read. */
  pusher: PagePusher | undefined;
  traffic: Backend["traffic"];
}

/** What is served, by the descriptor of its userfaultfd. */
export class HostedMemory {
  readonly #reactor: Reactor;
  readonly #pool: SlotPool;
  readonly #onDetached: (fd: number, error: Error | undefined) => void;
  readonly #served = new Map<number, Served>();

  /** Calls `onDetached` when a descriptor is served no more. */
  constructor(
    reactor: Reactor,
    pool: SlotPool,
    onDetached: (fd: number, error: Error | undefined) => void,
  ) {
    this.#reactor = reactor;
    this.#pool = pool;
    this.#onDetached = onDetached;
  }

  /** Begins to page in from a backend. Throws what `UserfaultServer` and the trackers do. */
  serve(fd: number, options: MemoryOptions, backend: Backend): void {
    const { tracking } = options;
    let faults: FaultTracker | undefined, copies: PagedCompareTracker | undefined;
    const server = new UserfaultServer(this.#reactor, this.#pool, fd, backend, {
      ...options,
      // Where every write to a clean page has to fault, there can be no zero page.
      install: {
        protect: tracking === "async-wp" || tracking === "wp-faults",
        zeroPage: tracking !== "wp-faults",
        onPlaced: tracking !== "compare" ? undefined : (region, from, to, source) => {
          const { pageSize } = region;
          copies?.placed(from * pageSize, source, (to - from) * pageSize);
        },
      },
      onWriteFault: (address) => faults?.onWriteFault(address),
      onDetached: (error) => this.#onDetached(fd, error),
    });
    try {
      const region = server.regions[0]!;
      const tracker = tracking && makeTracker(tracking, server, region);
      if (tracker instanceof FaultTracker) faults = tracker;
      if (tracker instanceof PagedCompareTracker) copies = tracker;
      const pusher = tracker && new PagePusher(
        this.#reactor,
        this.#pool,
        backend,
        region,
        tracker,
        server.statistics,
      );
      this.#served.set(fd, { server, pusher, traffic: backend.traffic });
    } catch (error) {
      server.release();
      throw error;
    }
  }

  /** Writes what was written to the memory back, and flushes that. */
  async push(fd: number): Promise<void> {
    await this.#find(fd).pusher?.push();
  }

  /** Writes back what was written to any of the memories. */
  async pushAll(): Promise<void> {
    for (const { pusher } of this.#served.values()) await pusher?.push();
  }

  /** Pages everything in. */
  async complete(fd: number): Promise<void> {
    await this.#find(fd).server.complete();
  }

  /** What was counted. */
  statistics(fd: number): MemoryStatistics {
    const { server, traffic } = this.#find(fd);
    return { ...server.statistics, owes: server.owes, wire: traffic && { ...traffic } };
  }

  /** Ends the service of one descriptor, which stays open. */
  release(fd: number): MemoryStatistics {
    const statistics = this.statistics(fd);
    const { server, pusher } = this.#find(fd);
    server.release();
    pusher?.[Symbol.dispose]();
    this.#served.delete(fd);
    return statistics;
  }

  /** Ends all of it. Whoever waits goes on waiting. */
  close(): void {
    for (const fd of [...this.#served.keys()]) this.release(fd);
  }

  #find(fd: number): Served {
    const served = this.#served.get(fd);
    if (served !== undefined) return served;
    throw new UsageError(`Cannot find memory with the userfaultfd ${fd}`);
  }
}

function makeTracker(
  method: TrackingMethod,
  server: UserfaultServer,
  region: PagedRegion,
): WriteTracker {
  if (method === "async-wp") return new AsyncTracker(region, { pagedIn: true });
  if (method === "wp-faults") return new FaultTracker(server.userfault, region);
  return new PagedCompareTracker(region);
}
