/**
 * What a cache asks of its journal, and what the journal asks of the cache; and the journal of a
 * cache in memory, which keeps nothing.
 *
 * @module
 */
import type { Awaitable } from "../backend/backend.ts";
import { Bitmap } from "../backend/bitmap.ts";
import { PartialChunks } from "./partial_chunks.ts";

/**
 * The bits of a cache, and their way to the disk. All of it belongs to one isolate.
 *
 * The cache changes the bits itself, and keeps to this, which the journal's promises rest on:
 *
 * - `dirty` is a part of `local`.
 * - An absent chunk becomes local when its content is written, never before; where that content is
 *   not the remote's, it becomes dirty in the same turn.
 * - A local chunk that is not dirty is changed only after {@linkcode CacheJournal.intend} answered,
 *   and is made dirty as soon as that answers, before the change begins.
 * - A chunk that is being changed stays dirty until the change is over.
 * - A chunk becomes clean only when the remote has flushed its content. Whoever is promised that
 *   the remote has it is told so after a commit that came later: a commit from before would push
 *   the older content again.
 * - The content of a chunk that is dropped stays as it is until it is committed as absent.
 * - Bytes are in `partial` when they are written, never before, and until their chunk is local or
 *   they are out of date.
 */
export interface CacheJournal {
  /** Chunks whose content in the cache is valid. */
  readonly local: Bitmap;
  /** Chunks of them whose content the remote has not got. */
  readonly dirty: Bitmap;
  /** Absent chunks of which the cache holds bytes that the remote has not got. */
  readonly partial: PartialChunks;
  /** Whether a commit makes those durable, too, where there are not too many. */
  readonly keepsPartial: boolean;
  /** Whether what is committed survives the loss of power. */
  readonly durable: boolean;
  /** What was found at opening. */
  readonly found: FoundState;
  /** Whether nobody has used the cache before; not so unless told. */
  readonly isNew?: boolean;
  /**
   * To be awaited before the content of clean local chunks `[from, to)` is changed: a crash then
   * shows them as absent, until they are committed as dirty. Answers at once, without a promise,
   * where their parts of the region are marked already. Throws what writing the mark throws;
   * nothing may be changed then.
   */
  intend(from: number, to: number): Awaitable<void>;
  /**
   * Makes the bits of this moment durable, and the content of the chunks with them: it flushes the
   * cache's backend itself. Answers whether that includes all bytes of chunks that are there in
   * part; where it does not, those that were committed before stay valid. Throws what flushing or
   * writing throws; the state that was committed before stays valid then, and a later call tries
   * again.
   */
  commit(): Promise<boolean>;
  /**
   * Commits, marks the state as closed in order and lets go of the file, which it does also where
   * that fails. To be called when no change is under way, before the cache's backend is closed.
   */
  close(): Promise<void>;
}

/** The state of a cache as it was found when it was opened. */
export interface FoundState {
  /** Whether it was closed in order the last time, or is new. */
  readonly closedInOrder: boolean;
  /** Chunks that are absent now because they may have been changed when it was not. */
  readonly suspect: number;
  /** Chunks that the remote has not got, as a whole or in part. */
  readonly dirty: number;
}

/** The journal of a cache in memory: nothing of that is there after a crash. */
export function volatileJournal(chunks: number): CacheJournal {
  return {
    local: new Bitmap(chunks),
    dirty: new Bitmap(chunks),
    partial: new PartialChunks(),
    keepsPartial: false,
    durable: false,
    found: { closedInOrder: true, suspect: 0, dirty: 0 },
    intend() {},
    commit: () => Promise.resolve(false),
    close: () => Promise.resolve(),
  };
}
