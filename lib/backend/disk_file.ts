/**
 * One open regular file or block device: reads that answer at once what the page cache holds,
 * writes into the page cache, holes, and a sync that loses no error.
 *
 * The descriptor is opened by `node:fs`, whose calls run off this thread and keep their errno; it
 * is the real one, so that libc can be called on it directly too.
 *
 * @module
 */
import {
  closeSync,
  fdatasync,
  fsyncSync,
  openSync,
  read as nodeRead,
  statfsSync,
  write as nodeWrite,
} from "node:fs";
import { ERRNO, errno, SystemError, throwErrno } from "../../ffi/errno.ts";
import {
  FALLOC,
  fallocate,
  ftruncate,
  Iovec,
  lseek,
  O,
  pread,
  preadCached,
  pwrite,
  pwriteAsync,
  SEEK,
} from "../../ffi/file.ts";
import { addressOf } from "../../ffi/libc.ts";
import { fileHint, fromNodeError, nodeCall } from "../../ffi/node_error.ts";
import type { Awaitable, Extent } from "./backend.ts";
import { IntegrityError } from "./errors.ts";
import { appendExtent } from "./extents.ts";
import { GroupCommit } from "./group_commit.ts";

/** Writes up to this many bytes run on this thread, as a copy into the page cache is that short. */
const SYNC_WRITE_BYTES = 1 << 20;

const CANNOT_PUNCH: readonly number[] = [
  ERRNO.EOPNOTSUPP,
  ERRNO.ENOSYS,
  ERRNO.ENODEV,
  // A block device takes whole sectors only.
  ERRNO.EINVAL,
];

/** Where the buffers that reads went into lie: asking costs more than a read from the page cache. */
const addresses = new WeakMap<ArrayBufferLike, number>();

/** Whether a file on the file system of `path` is gone when the power is (tmpfs, ramfs). */
export function isVolatile(path: string): boolean {
  // linux/magic.h
  const TMPFS_MAGIC = 0x01021994, RAMFS_MAGIC = 0x858458f6;
  const { type } = nodeCall("statfs", path, () => statfsSync(path));
  return type === TMPFS_MAGIC || type === RAMFS_MAGIC;
}

/** Makes the names in a directory durable, as they are now. Throws {@linkcode SystemError}. */
export function syncDirectory(path: string): void {
  nodeCall("fsync", path, () => {
    const fd = openSync(path, O.RDONLY | O.DIRECTORY);
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  });
}

/** An open file. The caller checks ranges, and calls nothing after {@linkcode close}. */
export class DiskFile {
  /** The path that it was opened by, for messages. */
  readonly path: string;
  /** Whether its bytes lie in memory only, so that reads are plain preads and wait for no disk. */
  readonly inMemory: boolean;
  readonly #fd: number;
  readonly #iov = new Iovec(1);
  readonly #commit = new GroupCommit(() => this.#dataSync());
  /** Whether the file system can tell what the page cache holds. */
  #tellsCached = true;
  #pending = 0;
  /** Settles when nothing is written aside any more. */
  #aside: Promise<void> = Promise.resolve();
  #idle: PromiseWithResolvers<void> | undefined;
  #writes = 0;
  #syncedWrites = 0;

  /**
   * Opens `path` with flags of open(2). `inMemory` says that {@linkcode isVolatile} holds for it.
   * Throws {@linkcode SystemError}.
   */
  constructor(path: string, flags: number, options: { inMemory: boolean }) {
    this.path = path;
    this.inMemory = options.inMemory;
    this.#fd = nodeCall("open", path, () => openSync(path, flags, 0o666));
  }

  /** Bytes to the end of the file or device, now. */
  get size(): number {
    const end = lseek(this.#fd, 0, SEEK.END);
    if (end < 0) throwErrno("lseek", this.path);
    return end;
  }

  /** Sets its size; what is added is a hole. Throws {@linkcode SystemError} (EFBIG, …). */
  truncate(size: number): void {
    ftruncate(this.#fd, size, this.path);
  }

  /** Whether nothing is under way on it. */
  get idle(): boolean {
    return this.#pending === 0;
  }

  /** Whether something was written that no {@linkcode sync} has made durable, or ever can. */
  get dirty(): boolean {
    return this.#writes !== this.#syncedWrites && !this.#commit.failed;
  }

  /** Answers when nothing is under way on it. */
  whenIdle(): Promise<void> {
    if (this.#pending === 0) return Promise.resolve();
    this.#idle ??= Promise.withResolvers();
    return this.#idle.promise;
  }

  /**
   * Fills the buffer from `offset`; answers the count, which is short only at the end of the file.
   * At once where the page cache holds it all. Throws {@linkcode SystemError} (EIO, …).
   */
  read(buffer: Uint8Array, offset: number): Awaitable<number> {
    const count = this.#readCached(buffer, offset);
    return count === buffer.length ? count : this.#readRest(buffer, offset, count);
  }

  /**
   * Writes all of the buffer at `offset`: at once up to 1 MiB, off this thread beyond. Throws
   * {@linkcode SystemError} (ENOSPC, EIO, …), after which part of it may be written.
   */
  write(buffer: Uint8Array, offset: number): Awaitable<void> {
    if (buffer.length > SYNC_WRITE_BYTES) return this.#writeAway(buffer, offset);
    this.#writes++;
    this.#writeHere(buffer, offset, 0);
  }

  /**
   * As {@linkcode write}, off this thread, and one at a time: the kernel lets no two writes into a
   * file at once, so that a second one would only take up a thread.
   */
  writeAside(buffer: Uint8Array, offset: number): Promise<void> {
    return this.#hold(() => {
      const written = this.#aside.then(() => this.#writeOnce(buffer, offset));
      this.#aside = written.catch(() => {});
      return written;
    });
  }

  async #writeOnce(buffer: Uint8Array, offset: number): Promise<void> {
    const count = await pwriteAsync(this.#fd, buffer, offset);
    // Only now: a sync that began before this was taken does not cover it.
    this.#writes++;
    // Whatever is left is tried here, as that tells why it fails.
    this.#writeHere(buffer, offset, Math.max(count, 0));
  }

  #writeHere(buffer: Uint8Array, offset: number, from: number): void {
    let done = from;
    while (done < buffer.length) {
      const rest = done === 0 ? buffer : buffer.subarray(done);
      const count = pwrite(this.#fd, rest, offset + done);
      if (count >= 0) done += count;
      else if (errno() !== ERRNO.EINTR) throwErrno("write", this.path, fileHint(errno()));
    }
  }

  /**
   * Makes a range read as zeroes: as a hole, or `allocated`. Answers false, with nothing changed,
   * where the file system or device cannot. Throws {@linkcode SystemError} (ENOSPC, EIO, …).
   */
  zero(offset: number, length: number, options: { allocated: boolean }): boolean {
    this.#writes++;
    const mode = options.allocated ? FALLOC.ZERO_RANGE : FALLOC.PUNCH_HOLE;
    while (fallocate(this.#fd, mode | FALLOC.KEEP_SIZE, offset, length) < 0) {
      const error = errno();
      if (CANNOT_PUNCH.includes(error)) return false;
      if (error !== ERRNO.EINTR) {
        throw new SystemError({ syscall: "fallocate", errno: error, subject: this.path });
      }
    }
    return true;
  }

  /**
   * The runs of data and holes of a range inside the file; all of it data where the file system
   * cannot tell. Throws {@linkcode SystemError}.
   */
  extents(offset: number, length: number): Extent[] {
    const extents: Extent[] = [];
    const end = offset + length;
    for (let at = offset; at < end;) {
      const data = this.#seek(at, SEEK.DATA, end);
      appendExtent(extents, { offset: at, length: data - at, hole: true, zero: true });
      if (data === end) break;
      const hole = this.#seek(data, SEEK.HOLE, end);
      appendExtent(extents, { offset: data, length: hole - data, hole: false, zero: false });
      at = hole;
    }
    return extents;
  }

  /**
   * Answers when all that was written before the call, by whomever, is durable. After a failure
   * every later call fails alike. Throws {@linkcode SystemError} (EIO, ENOSPC, EDQUOT).
   */
  sync(): Promise<void> {
    return this.#hold(() => this.#commit.run());
  }

  /** Closes the descriptor as soon as nothing is under way on it. */
  close(): Awaitable<void> {
    if (this.idle) return closeSync(this.#fd);
    return this.whenIdle().then(() => this.close());
  }

  #readCached(buffer: Uint8Array, offset: number): number {
    if (buffer.length === 0) return 0;
    if (this.inMemory) return Math.max(pread(this.#fd, buffer, offset), 0);
    if (!this.#tellsCached) return 0;
    let address = addresses.get(buffer.buffer);
    if (address === undefined) {
      // Naming .buffer has moved a small array off the V8 heap, so that it stays where it is.
      address = addressOf(new Uint8Array(buffer.buffer));
      addresses.set(buffer.buffer, address);
    }
    this.#iov.set(0, address + buffer.byteOffset, buffer.length);
    const count = preadCached(this.#fd, this.#iov.bytes, 1, offset);
    if (count >= 0) return count;
    if (errno() === ERRNO.EOPNOTSUPP) this.#tellsCached = false;
    return 0;
  }

  async #readRest(buffer: Uint8Array, offset: number, from: number): Promise<number> {
    return await this.#hold(async () => {
      let done = from;
      while (done < buffer.length) {
        const count = await this.#away("read", readOnce(this.#fd, buffer, done, offset + done));
        if (count === 0) break;
        done += count;
      }
      return done;
    });
  }

  async #writeAway(buffer: Uint8Array, offset: number): Promise<void> {
    await this.#hold(async () => {
      for (let done = 0; done < buffer.length;) {
        done += await this.#away("write", writeOnce(this.#fd, buffer, done, offset + done));
        // Only now: a sync that began before this piece was taken does not cover it.
        this.#writes++;
      }
    });
  }

  async #dataSync(): Promise<void> {
    const writes = this.#writes;
    await this.#away("fdatasync", dataSync(this.#fd));
    this.#syncedWrites = writes;
  }

  /** Answers what a call that runs off this thread does. */
  async #away<T>(syscall: string, call: Promise<T>): Promise<T> {
    try {
      return await call;
    } catch (error) {
      throw fromNodeError(error, syscall, this.path);
    }
  }

  /** Keeps the descriptor open while `run` is under way. */
  async #hold<T>(run: () => Promise<T>): Promise<T> {
    this.#pending++;
    try {
      return await run();
    } finally {
      this.#pending--;
      if (this.#pending === 0) {
        this.#idle?.resolve();
        this.#idle = undefined;
      }
    }
  }

  /** Where data or a hole begins at or after `offset`, `end` at most. */
  #seek(offset: number, whence: number, end: number): number {
    const found = lseek(this.#fd, offset, whence);
    if (found >= 0) return Math.min(found, end);
    const error = errno();
    if (error === ERRNO.ENXIO) return this.#holeToEnd(end);
    if (error === ERRNO.EINVAL) return whence === SEEK.DATA ? offset : end;
    throw new SystemError({ syscall: "lseek", errno: error, subject: this.path });
  }

  #holeToEnd(end: number): number {
    if (this.size < end) throw shrunk(this.path, this.size);
    return end;
  }
}

/** What to throw where a file ends before the region that was opened in it does. */
export function shrunk(path: string, size: number): IntegrityError {
  return new IntegrityError(`Cannot read ${path} to its end: it shrank to ${size} bytes`, {
    hint: "somebody truncated it while it was open; restore it and open it again",
  });
}

function readOnce(fd: number, buffer: Uint8Array, from: number, offset: number): Promise<number> {
  return new Promise((resolve, reject) => {
    nodeRead(fd, buffer, from, buffer.length - from, offset, (error, count) => {
      if (error) reject(error);
      else resolve(count);
    });
  });
}

function writeOnce(fd: number, buffer: Uint8Array, from: number, offset: number): Promise<number> {
  return new Promise((resolve, reject) => {
    nodeWrite(fd, buffer, from, buffer.length - from, offset, (error, count) => {
      if (error) reject(error);
      else resolve(count);
    });
  });
}

function dataSync(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fdatasync(fd, (error) => error ? reject(error) : resolve());
  });
}
