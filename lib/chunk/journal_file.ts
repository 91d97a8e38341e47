/**
 * The file of a cache's journal: where it lies, and that one process at a time has it.
 *
 * It lies beside the cache, as `/p.state` for `file:/p` and as `/p/telemap.state` for `dir:/p`.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { closeSync, existsSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import { ftruncate, lseek, SEEK } from "../../ffi/file.ts";
import { nodeCall } from "../../ffi/node_error.ts";
import type { Backend } from "../backend/backend.ts";
import { syncDirectory } from "../backend/disk_file.ts";
import { UsageError } from "../backend/errors.ts";
import { openFile } from "../backend/file.ts";
import { parseLocalUrl } from "../backend/local_url.ts";
import { lockFile } from "../backend/lock_file.ts";
import { type CacheJournal, volatileJournal } from "./cache_journal.ts";
import type { JournalStorage } from "./journal.ts";
import {
  type JournalContent,
  loadJournal,
  readJournal,
  type RemoteIdentity,
  stateSize,
} from "./journal_load.ts";
import { ID_BYTES } from "./journal_pages.ts";

/** How {@linkcode openJournal} opens. */
export interface OpenJournalOptions {
  /** The URL of the cache: `memory:`, `file:` or `dir:`. */
  url: URL | string;
  /** What was opened by that URL. It stays the caller's. */
  cache: Backend;
  /** Bytes of the region. */
  size: number;
  /** Bytes of a chunk. */
  chunkSize: number;
  /** What is cached. */
  remote: RemoteIdentity;
  /** Give up what the cache holds, also what was not pushed, and begin anew. */
  discard?: boolean | undefined;
}

/**
 * Opens the journal of a cache, and makes it where there is none; it is locked until it is closed.
 * That of a cache in memory is gone with it.
 *
 * @throws {SystemError} EAGAIN: the cache is in use; ENOSPC, EACCES, …
 * @throws {Error} As {@linkcode loadJournal} does.
 */
export async function openJournal(options: OpenJournalOptions): Promise<CacheJournal> {
  const { size, chunkSize } = options;
  const place = placeOf(options.url);
  if (place === undefined) return volatileJournal(Math.ceil(size / chunkSize));
  const state = openState(place.state, stateSize(size, chunkSize));
  try {
    return await loadJournal({ ...options, state, name: place.state, cacheId: place.id });
  } catch (error) {
    await state.close();
    throw error;
  }
}

/**
 * What the journal of a cache says, which need not be closed: nothing is locked or changed. Undefined
 * where there is none. Throws as {@linkcode loadJournal} does on one that is damaged.
 */
export async function lookIntoJournal(url: string): Promise<JournalContent | undefined> {
  const place = placeOf(url);
  if (place === undefined || !existsSync(place.state)) return undefined;
  const state = openFile({ path: place.state, readOnly: true });
  try {
    return await readJournal(state, place.state);
  } finally {
    await state.close();
  }
}

/** Where the state of a cache lies, and what tells the cache from another of its name. */
function placeOf(url: URL | string): { state: string; id: Uint8Array } | undefined {
  // Which need not say its size.
  if (/^memory:/i.test(`${url}`)) return undefined;
  const store = parseLocalUrl(url);
  if (store?.scheme !== "file" && store?.scheme !== "dir") {
    throw new UsageError(`Cannot use ${url} as a cache`, {
      hint: "a cache lies in file:, dir: or memory:",
    });
  }
  const path = nodeCall("open", store.path, () => realpathSync(store.path));
  const stat = nodeCall("stat", path, () => statSync(path));
  if (stat.isBlockDevice()) {
    throw new UsageError(`Cannot use ${path} as a cache as its state has no place beside it`, {
      hint: "make a file system on it, and name a file there",
    });
  }
  const told = `${store.scheme} ${stat.ino} ${stat.birthtimeMs}`;
  const id = createHash("sha256").update(told).digest().subarray(0, ID_BYTES);
  return { state: store.scheme === "dir" ? join(path, "telemap.state") : `${path}.state`, id };
}

/** Opens and locks the file, and makes it where it is not there, all zero; at least of that size. */
function openState(path: string, size: number): JournalStorage {
  const lock = lockFile(path, { subject: path });
  try {
    if (lseek(lock, 0, SEEK.END) < size) {
      ftruncate(lock, size, path);
      syncDirectory(join(path, ".."));
    }
    const file = openFile({ path });
    return {
      size: file.size,
      durable: file.durable,
      readAt: (buffer, offset) => file.readAt(buffer, offset),
      writeAt: (buffer, offset) => file.writeAt(buffer, offset),
      flush: () => file.flush(),
      async close() {
        await file.close();
        closeSync(lock);
      },
    };
  } catch (error) {
    closeSync(lock);
    throw error;
  }
}
