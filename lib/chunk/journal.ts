/**
 * What the cache of a managed mount remembers over a crash: which chunks it holds, and which of
 * them the remote has not got.
 *
 * @module
 */
import type { Awaitable } from "../backend/backend.ts";
import { Bitmap } from "../backend/bitmap.ts";

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
 */
export interface CacheJournal {
  /** Chunks whose content in the cache is valid. */
  readonly local: Bitmap;
  /** Chunks of them whose content the remote has not got. */
  readonly dirty: Bitmap;
  /** Whether what is committed survives the loss of power. */
  readonly durable: boolean;
  /**
   * To be awaited before the content of clean local chunks `[from, to)` is changed: a crash then
   * shows them as absent, until they are committed as dirty. Answers at once, without a promise,
   * where their regions are marked already. Throws what writing the mark throws; nothing may be
   * changed then.
   */
  intend(from: number, to: number): Awaitable<void>;
  /**
   * Makes the bits of this moment durable, and the content of the chunks with them: it flushes the
   * cache's backend itself. Throws what flushing or writing throws; the state that was committed
   * before stays valid then, and a later call tries again.
   */
  commit(): Promise<void>;
  /** Commits, and marks the state as closed in order; to be called before the backend is closed. */
  close(): Promise<void>;
}

/** The journal of a cache in memory, which nothing of is there after a crash. */
export function volatileJournal(chunks: number): CacheJournal {
  return {
    local: new Bitmap(chunks),
    dirty: new Bitmap(chunks),
    durable: false,
    intend() {},
    commit: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
}
