/**
 * The memory of this process that a host Worker pages in from its backend and pushes back to it.
 *
 * @module
 */
import type { Backend } from "../backend/backend.ts";
import { UsageError } from "../backend/errors.ts";
import type { Reactor } from "../net/reactor.ts";
import type { SlotPool } from "../net/slot_pool.ts";
import { UserfaultServer } from "../userfault/server.ts";
import type { MemoryOptions, MemoryStatistics } from "./protocol.ts";

interface Served {
  server: UserfaultServer;
  tracked: { push(): Promise<void> } | undefined;
}

/** What is served, by the descriptor of its userfaultfd. */
export class HostedMemory {
  readonly #reactor: Reactor;
  readonly #pool: SlotPool;
  readonly #backend: Backend;
  readonly #onDetached: (fd: number, error: Error | undefined) => void;
  readonly #served = new Map<number, Served>();

  /** Calls `onDetached` when a descriptor is served no more. */
  constructor(
    reactor: Reactor,
    pool: SlotPool,
    backend: Backend,
    onDetached: (fd: number, error: Error | undefined) => void,
  ) {
    this.#reactor = reactor;
    this.#pool = pool;
    this.#backend = backend;
    this.#onDetached = onDetached;
  }

  /** Begins to page in. Throws what `UserfaultServer` does. */
  serve(fd: number, options: MemoryOptions): void {
    const server = new UserfaultServer(this.#reactor, this.#pool, fd, this.#backend, {
      ...options,
      onDetached: (error) => this.#onDetached(fd, error),
    });
    this.#served.set(fd, { server, tracked: undefined });
  }

  /** Writes what was written to the memory back. */
  async push(fd: number): Promise<void> {
    await this.#find(fd).tracked?.push();
  }

  /** What was counted. */
  statistics(fd: number): MemoryStatistics {
    const { server } = this.#find(fd);
    return { ...server.statistics, owes: server.owes };
  }

  /** Ends the service of one descriptor, which stays open. */
  release(fd: number): MemoryStatistics {
    const statistics = this.statistics(fd);
    this.#find(fd).server.release();
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
