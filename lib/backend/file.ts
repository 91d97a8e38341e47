/**
 * Bytes in one regular file or block device.
 *
 * @module
 */
import { statSync, unlinkSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { ERRNO, SystemError } from "../../ffi/errno.ts";
import { O } from "../../ffi/file.ts";
import { nodeCall } from "../../ffi/node_error.ts";
import { type Awaitable, type Backend, checkRange, type Extent } from "./backend.ts";
import type { SharedBackend, ZeroOptions } from "./backend.ts";
import { DiskFile, isVolatile, shrunk, syncDirectory } from "./disk_file.ts";
import { ClosedError, ReadOnlyError, UnsupportedError, UsageError } from "./errors.ts";
import { fileUrl } from "./file_url.ts";

/** How {@linkcode openFile} opens. */
export interface OpenFileOptions {
  /** The file or block device; relative to the working directory. */
  path: string;
  /** Bytes that it has, or is made with; only needed to make it. */
  size?: number;
  /** Open it for reading only; false unless told. */
  readOnly?: boolean;
  /** Make the file, all hole, where there is none; true where a size is given unless told. */
  create?: boolean;
}

/**
 * Opens a regular file or block device as a region. A file that is there keeps its size.
 *
 * Throws {@linkcode UsageError} where it has another size than asked for, is empty, or is no file
 * or block device, and {@linkcode SystemError} (ENOENT, EACCES, EROFS, …).
 */
export function openFile(options: OpenFileOptions): Backend {
  const { size, readOnly = false } = options;
  const path = resolve(options.path);
  if (size !== undefined && (!Number.isSafeInteger(size) || size <= 0)) {
    throw new UsageError(`Cannot open ${path} with ${size} bytes`, {
      hint: "give it a whole number of bytes over 0",
    });
  }
  const present = nodeCall("open", path, () => statSync(path, { throwIfNoEntry: false }));
  if (present === undefined) {
    const create = options.create ?? size !== undefined;
    if (!create || size === undefined || readOnly) throw missing(path);
    return new FileBackend(createFile(path, size), size, readOnly);
  }
  if (!present.isFile() && !present.isBlockDevice()) {
    throw new UsageError(`Cannot open ${path} as it is no regular file or block device`, {
      ...(present.isDirectory() &&
        { hint: "open a directory of chunks by dir: in place of file:" }),
    });
  }
  // A device lies wherever it does, though its name is in a file system in memory.
  const inMemory = present.isFile() && isVolatile(path);
  const file = new DiskFile(path, readOnly ? O.RDONLY : O.RDWR, { inMemory });
  try {
    return new FileBackend(file, checkedSize(file, size), readOnly);
  } catch (error) {
    file.close();
    throw error;
  }
}

function missing(path: string): SystemError {
  const hint = "check the path, or give a size to make the file, such as ?size=1GiB";
  return new SystemError({ syscall: "open", errno: ERRNO.ENOENT, subject: path, hint });
}

/** Makes a file that is all hole, and its name durable. */
function createFile(path: string, size: number): DiskFile {
  const inMemory = isVolatile(dirname(path));
  const file = new DiskFile(path, O.RDWR | O.CREAT | O.EXCL, { inMemory });
  try {
    file.truncate(size);
    syncDirectory(dirname(path));
    return file;
  } catch (error) {
    file.close();
    unlinkSync(path);
    throw error;
  }
}

/** The bytes that a file has, which are to be those asked for where any were. */
function checkedSize(file: DiskFile, asked: number | undefined): number {
  const size = file.size;
  if (size === 0) {
    throw new UsageError(`Cannot open ${file.path} as it is empty`, {
      hint: "set its size with truncate -s, or remove it and give a size to make it anew",
    });
  }
  if (asked !== undefined && asked !== size) {
    throw new UsageError(`Cannot open ${file.path} with ${asked} bytes as it has ${size}`, {
      hint: "leave the size out to take it as it is, or name another file",
    });
  }
  return size;
}

/** A region in a file. */
class FileBackend implements Backend {
  readonly size: number;
  readonly blockSize = 1;
  readonly restsBetweenCalls = true;
  readonly durable: boolean;
  readonly readOnly: boolean;
  readonly #file: DiskFile;
  #closed = false;

  constructor(file: DiskFile, size: number, readOnly: boolean) {
    this.#file = file;
    this.size = size;
    this.readOnly = readOnly;
    this.durable = !file.inMemory;
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#check(offset, buffer.length);
    const count = this.#file.read(buffer, offset);
    if (count === buffer.length) return;
    return this.#awaitWhole(count, buffer.length);
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#checkWrite(offset, buffer.length);
    return this.#file.write(buffer, offset);
  }

  writeAside(buffer: Uint8Array, offset: number): Promise<void> {
    this.#checkWrite(offset, buffer.length);
    return this.#file.writeAside(buffer, offset);
  }

  /** Syncs always, as instances in other Workers may have written what this one vouches for. */
  flush(): Awaitable<void> {
    this.#checkOpen();
    return this.#file.sync();
  }

  zero(offset: number, length: number, options: ZeroOptions = {}): void {
    this.#checkWrite(offset, length);
    if (length === 0) return;
    if (!this.#file.zero(offset, length, { allocated: options.allocate ?? false })) {
      throw new UnsupportedError(`Cannot zero ${length} bytes of ${this.#file.path} quickly`);
    }
  }

  discard(offset: number, length: number): void {
    this.#checkWrite(offset, length);
    if (length > 0) this.#file.zero(offset, length, { allocated: false });
  }

  extents(offset: number, length: number): Extent[] {
    this.#check(offset, length);
    return this.#file.extents(offset, length);
  }

  share(): SharedBackend {
    this.#checkOpen();
    const { size, readOnly } = this;
    return { kind: "file", url: fileUrl({ path: this.#file.path, size, readOnly }) };
  }

  close(): Awaitable<void> {
    if (this.#closed) return;
    this.#closed = true;
    return this.#file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #awaitWhole(count: Awaitable<number>, wanted: number): Promise<void> {
    if (await count !== wanted) throw shrunk(this.#file.path, this.#file.size);
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
    if (this.#closed) throw new ClosedError(`Cannot use ${this.#file.path} as it was closed`);
  }
}
