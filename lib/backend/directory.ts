/**
 * Bytes in a directory with a file for each chunk that was ever written.
 *
 * @module
 */
import { resolve } from "node:path";
import { syncfsAsync } from "../../ffi/file.ts";
import {
  type Awaitable,
  type Backend,
  checkRange,
  type Extent,
  type ZeroOptions,
} from "./backend.ts";
import { ChunkFiles } from "./chunk_files.ts";
import { type LockedManifest, lockManifest, releaseManifest } from "./directory_manifest.ts";
import {
  ClosedError,
  IntegrityError,
  ReadOnlyError,
  UnsupportedError,
  UsageError,
} from "./errors.ts";
import { appendExtent } from "./extents.ts";
import { GroupCommit } from "./group_commit.ts";
import { OpenFiles } from "./open_files.ts";
import { settleAll } from "./settle.ts";

/** How {@linkcode openDirectory} opens. */
export interface OpenDirectoryOptions {
  /** The directory; relative to the working directory. */
  path: string;
  /** Bytes of the region; needed to make it, and compared with what is recorded otherwise. */
  size?: number;
  /**
   * Bytes of a chunk, a multiple of 4 KiB up to 1 GiB; 1 MiB for a new directory unless told, more
   * where it is huge. Compared with what is recorded in one that is there.
   */
  chunkSize?: number;
  /** Open it for reading only, together with other readers; false unless told. */
  readOnly?: boolean;
  /** Chunk files that are open at most; 64 unless told. */
  maxOpen?: number;
}

/**
 * Opens a directory of chunks as a region, and makes it where there is none and a size is given.
 * It is locked until it is closed.
 *
 * Throws {@linkcode UsageError} where the sizes are not those recorded or make no sense, or the
 * directory holds something else; `IntegrityError` where its manifest is damaged, and `SystemError`
 * (EAGAIN: in use by somebody else; ENOENT, EACCES, EROFS, …).
 */
export function openDirectory(options: OpenDirectoryOptions): Backend {
  const { size, chunkSize, readOnly = false, maxOpen = 64 } = options;
  if (!Number.isSafeInteger(maxOpen) || maxOpen <= 0) {
    throw new UsageError(`Cannot keep ${maxOpen} files open`, { hint: "allow 1 or more" });
  }
  const path = resolve(options.path);
  const manifest = lockManifest({ path, size, chunkSize, readOnly });
  return new DirectoryBackend(path, manifest, { readOnly, maxOpen });
}

/** The part of a range that lies in one chunk. */
interface Piece {
  chunk: number;
  /** Where it begins in the chunk. */
  at: number;
  /** Where it begins in the range. */
  from: number;
  length: number;
}

/** A region in a directory of chunks. */
class DirectoryBackend implements Backend {
  readonly size: number;
  readonly blockSize = 1;
  readonly restsBetweenCalls = true;
  readonly durable: boolean;
  readonly readOnly: boolean;
  readonly #manifest: LockedManifest;
  readonly #chunks: ChunkFiles;
  readonly #files: OpenFiles;
  readonly #commit = new GroupCommit(() => this.#sync());
  /** What goes on in several steps, and is waited for before the lock is given back. */
  readonly #underWay = new Set<Promise<void>>();
  /**
   * Whether a process before this one may have written what it did not sync. It acknowledged that,
   * so the next flush vouches for it; which files that are, only the kernel knows.
   */
  #inherited: boolean;
  #closing: Promise<void> | undefined;

  constructor(
    path: string,
    manifest: LockedManifest,
    options: { readOnly: boolean; maxOpen: number },
  ) {
    const { readOnly, maxOpen } = options;
    this.size = manifest.size;
    this.readOnly = readOnly;
    this.#manifest = manifest;
    this.#inherited = manifest.inherited && !readOnly;
    this.#chunks = new ChunkFiles(path, { ...manifest, readOnly });
    this.#files = new OpenFiles(maxOpen);
    this.durable = !this.#chunks.inMemory;
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#check(offset, buffer.length);
    return this.#eachPiece(offset, buffer.length, ({ chunk, at, from, length }) => {
      const part = length === buffer.length ? buffer : buffer.subarray(from, from + length);
      return this.#readPiece(chunk, at, part);
    });
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#checkWrite(offset, buffer.length);
    return this.#eachPiece(offset, buffer.length, ({ chunk, at, from, length }) => {
      const part = length === buffer.length ? buffer : buffer.subarray(from, from + length);
      return this.#files.use(chunk, () => this.#chunks.open(chunk), (file) => file.write(part, at));
    });
  }

  flush(): Promise<void> {
    this.#checkOpen();
    return this.#track(this.#commit.run());
  }

  zero(offset: number, length: number, options: ZeroOptions = {}): Promise<void> {
    this.#checkWrite(offset, length);
    if (options.allocate) {
      throw new UnsupportedError(`Cannot zero and keep ${length} bytes of chunks quickly`);
    }
    return this.#track(this.#clear(offset, length, { partial: true }));
  }

  discard(offset: number, length: number): Promise<void> {
    this.#checkWrite(offset, length);
    return this.#track(this.#clear(offset, length, { partial: false }));
  }

  extents(offset: number, length: number): Extent[] {
    this.#check(offset, length);
    const extents: Extent[] = [];
    const { chunkSize } = this.#manifest;
    const end = offset + length;
    for (let at = offset; at < end;) {
      const chunk = Math.floor(at / chunkSize);
      const runEnd = this.#chunks.runEnd(chunk, Math.ceil(end / chunkSize));
      const stop = Math.min(runEnd * chunkSize, end);
      const hole = !this.#chunks.has(chunk);
      appendExtent(extents, { offset: at, length: stop - at, hole, zero: hole });
      at = stop;
    }
    return extents;
  }

  close(): Promise<void> {
    return this.#closing ??= this.#closeAll();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Fills a buffer from a chunk; what the file is short of reads as zeroes. */
  #readPiece(chunk: number, at: number, buffer: Uint8Array): Awaitable<void> {
    if (!this.#chunks.has(chunk)) {
      buffer.fill(0);
      return;
    }
    const count = this.#files.use(
      chunk,
      () => this.#chunks.open(chunk),
      (file) => file.read(buffer, at),
    );
    if (count === buffer.length) return;
    return fillRest(buffer, count);
  }

  /** Removes the files of whole chunks, and punches a hole into those of partial ones first. */
  async #clear(offset: number, length: number, options: { partial: boolean }): Promise<void> {
    const whole: number[] = [];
    for (const { chunk, at, length: count } of this.#pieces(offset, length)) {
      if (!this.#chunks.has(chunk)) continue;
      if (count === this.#chunks.lengthOf(chunk)) {
        whole.push(chunk);
        continue;
      }
      const punched = await this.#files.use(
        chunk,
        () => this.#chunks.open(chunk),
        (file) => file.zero(at, count, { allocated: false }),
      );
      if (!punched && options.partial) {
        throw new UnsupportedError("Cannot zero part of a chunk as its file system has no holes");
      }
    }
    for (const chunk of whole) {
      this.#files.drop(chunk);
      await this.#chunks.remove(chunk);
    }
  }

  async #sync(): Promise<void> {
    if (this.#inherited) {
      await syncFileSystem(this.#chunks.path, this.#manifest.lock);
      this.#inherited = false;
    }
    await this.#files.sync();
    await this.#chunks.syncNames();
  }

  async #closeAll(): Promise<void> {
    await Promise.allSettled(this.#underWay);
    await this.#files.close();
    releaseManifest(this.#manifest);
  }

  /** Runs `work` on every piece of a range; side by side where it does not answer at once. */
  #eachPiece(
    offset: number,
    length: number,
    work: (piece: Piece) => Awaitable<void>,
  ): Awaitable<void> {
    const waiting: Promise<void>[] = [];
    for (const piece of this.#pieces(offset, length)) {
      try {
        const answer = work(piece);
        if (answer !== undefined) waiting.push(answer);
      } catch (error) {
        if (waiting.length === 0) throw error;
        waiting.push(Promise.reject(error));
        break;
      }
    }
    if (waiting.length > 0) return settleAll(waiting);
  }

  *#pieces(offset: number, length: number): Generator<Piece, void, undefined> {
    const { chunkSize } = this.#manifest;
    for (let from = 0; from < length;) {
      const chunk = Math.floor((offset + from) / chunkSize);
      const at = offset + from - chunk * chunkSize;
      const count = Math.min(chunkSize - at, length - from);
      yield { chunk, at, from, length: count };
      from += count;
    }
  }

  #track(promise: Promise<void>): Promise<void> {
    const tracked = promise.finally(() => this.#underWay.delete(tracked));
    this.#underWay.add(tracked);
    return tracked;
  }

  #check(offset: number, length: number): void {
    this.#checkOpen();
    checkRange(this.size, offset, length);
  }

  #checkWrite(offset: number, length: number): void {
    this.#check(offset, length);
    if (this.readOnly) throw new ReadOnlyError();
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) {
      throw new ClosedError(`Cannot use ${this.#chunks.path} as it was closed`);
    }
  }
}

async function fillRest(buffer: Uint8Array, count: Awaitable<number>): Promise<void> {
  buffer.fill(0, await count);
}

async function syncFileSystem(path: string, fd: number): Promise<void> {
  if (await syncfsAsync(fd)) return;
  throw new IntegrityError(`Cannot sync the file system of ${path}`, {
    hint: "a disk may be full or broken; the kernel's log says more",
  });
}
