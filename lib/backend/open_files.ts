/**
 * A bounded number of open files, the least recently used of which make room for others.
 *
 * @module
 */
import type { Awaitable } from "./backend.ts";
import type { DiskFile } from "./disk_file.ts";
import { ClosedError } from "./errors.ts";
import { settleAll } from "./settle.ts";

/** Dirty files that are synced side by side when room is needed and no clean file is to be had. */
const SYNC_AT_ONCE = 8;

/**
 * Open files by number. A file with unsynced writes is synced before it is closed, as the kernel
 * may forget that it lost a write once nobody holds the file open.
 */
export class OpenFiles {
  readonly #limit: number;
  /** The least recently used one first. */
  readonly #files = new Map<number, DiskFile>();
  /** Files that were let go of and are closed as soon as they are idle. */
  readonly #closing = new Set<Promise<void>>();
  #latest = -1;
  #makingRoom: Promise<void> | undefined;
  #failure: { error: unknown } | undefined;
  #closed = false;

  /** Holds `limit` files open at most, over 0. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * Answers what `work` answers for file `key`, which `open` opens where it is not open. The file
   * stays open while what `work` began on it is under way; `work` is called before this returns
   * where there is room.
   */
  use<T>(key: number, open: () => DiskFile, work: (file: DiskFile) => Awaitable<T>): Awaitable<T> {
    if (this.#closed) throw closedError();
    const file = this.#files.get(key);
    if (file !== undefined) {
      if (key !== this.#latest) this.#touch(key, file);
      return work(file);
    }
    if (this.#hasRoom()) return work(this.#add(key, open));
    return this.#useLater(key, open, work);
  }

  /** Closes a file that is of no use any more, as soon as nothing is under way on it. */
  drop(key: number): void {
    const file = this.#files.get(key);
    if (file !== undefined) this.#release(key, file);
  }

  /**
   * Answers when all that was written before the call is durable; throws for ever after a write
   * was lost.
   */
  async sync(): Promise<void> {
    try {
      await settleAll([...this.#files.values()].filter((file) => file.dirty).map((f) => f.sync()));
    } catch (error) {
      this.#failure ??= { error };
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Closes all files, when nothing is under way on them. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const [key, file] of this.#files) this.#release(key, file);
    await settleAll([...this.#closing]);
  }

  async #useLater<T>(
    key: number,
    open: () => DiskFile,
    work: (file: DiskFile) => Awaitable<T>,
  ): Promise<T> {
    while (!this.#files.has(key) && !this.#hasRoom()) {
      await (this.#makingRoom ??= this.#makeRoom());
      if (this.#closed) throw closedError();
    }
    return await this.use(key, open, work);
  }

  #touch(key: number, file: DiskFile): void {
    this.#files.delete(key);
    this.#files.set(key, file);
    this.#latest = key;
  }

  #add(key: number, open: () => DiskFile): DiskFile {
    const file = open();
    this.#touch(key, file);
    return file;
  }

  /** Whether another file may be opened; closes one that is idle and clean for it. */
  #hasRoom(): boolean {
    if (this.#files.size + this.#closing.size < this.#limit) return true;
    for (const [key, file] of this.#files) {
      if (!file.idle || file.dirty) continue;
      this.#release(key, file);
      return true;
    }
    return false;
  }

  /** Answers when {@linkcode #hasRoom} is worth another try. */
  async #makeRoom(): Promise<void> {
    const files = [...this.#files.values()];
    const idle = files.filter((file) => file.idle).slice(0, SYNC_AT_ONCE);
    try {
      if (idle.length > 0) await settleAll(idle.map((file) => file.sync()));
      else await Promise.race([...this.#closing, ...files.map((file) => file.whenIdle())]);
    } catch (error) {
      this.#failure ??= { error };
    } finally {
      this.#makingRoom = undefined;
    }
  }

  #release(key: number, file: DiskFile): void {
    this.#files.delete(key);
    const closing = file.close();
    if (closing === undefined) return;
    this.#closing.add(closing);
    closing.finally(() => this.#closing.delete(closing));
  }
}

function closedError(): ClosedError {
  return new ClosedError("Cannot open a file of the store as it was closed");
}
