/**
 * The state of a small cache in memory, which counts how its journal writes it, and holds that up.
 *
 * @module
 */
import type { CacheJournal } from "../lib/chunk/cache_journal.ts";
import type { JournalStorage } from "../lib/chunk/journal.ts";
import { loadJournal, stateSize } from "../lib/chunk/journal_load.ts";
import { PAGE_CHUNKS } from "../lib/chunk/journal_pages.ts";
import { chooser, Power, PowerCutDisk } from "./power_cut.ts";

/** Bytes of a chunk. */
export const CHUNK = 4096;
/** Chunks of the region: three pages. */
export const CHUNKS = 3 * PAGE_CHUNKS;
/** Bytes of the region. */
export const SIZE = CHUNKS * CHUNK;
/** Chunks that one intent covers. */
export const PART = 1024;
/** What is cached. */
export const REMOTE = { id: new Uint8Array(16).fill(7) };

/** A state in memory that counts, and whose flushes wait where they are told to. */
export class CountedState implements JournalStorage {
  readonly durable = true;
  readonly size: number;
  /** Offsets of writes since it was last looked at. */
  writes: number[] = [];
  flushes = 0;
  /** What flushes wait for. */
  gate: Promise<void> | undefined;
  /** What the next write throws. */
  failure: Error | undefined;
  readonly #bytes: Uint8Array;

  constructor(bytes = new Uint8Array(stateSize(SIZE, CHUNK))) {
    this.#bytes = bytes;
    this.size = bytes.length;
  }

  /** What the process would leave if it were killed now. */
  copy(): CountedState {
    return new CountedState(this.#bytes.slice());
  }

  readAt(buffer: Uint8Array, offset: number): void {
    buffer.set(this.#bytes.subarray(offset, offset + buffer.length));
  }

  writeAt(buffer: Uint8Array, offset: number): void {
    if (this.failure !== undefined) throw this.failure;
    this.writes.push(offset);
    this.#bytes.set(buffer, offset);
  }

  async flush(): Promise<void> {
    this.flushes++;
    await this.gate;
  }

  close(): void {}
}

/** Opens the journal of that state, of a cache that holds nothing. */
export function load(state: JournalStorage): Promise<CacheJournal> {
  const power = new Power({ choose: chooser(1) });
  return loadJournal({
    state,
    cache: new PowerCutDisk(SIZE).open(power),
    cacheId: new Uint8Array(16),
    size: SIZE,
    chunkSize: CHUNK,
    partChunks: PART,
    remote: REMOTE,
    name: "the state",
  });
}
