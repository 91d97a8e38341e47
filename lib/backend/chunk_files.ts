/**
 * The files of a directory of chunks: their names, which of them are there, and that making and
 * removing them is durable.
 *
 * Chunk `i` is the file `<i / 4096>/<i>` below the directory, both in hexadecimal digits, as many
 * as the last one takes. What a group's directory holds is looked up once, when the group is first
 * touched, and kept as a bit a chunk: the lock of the directory keeps others from changing it.
 *
 * @module
 */
import { closeSync, fsync, mkdirSync, openSync, readdirSync, statSync } from "node:fs";
import { unlink } from "node:fs/promises";
import { join } from "node:path";
import { O } from "../../ffi/file.ts";
import { fromNodeError, nodeCall } from "../../ffi/node_error.ts";
import { Bitmap } from "./bitmap.ts";
import { DiskFile, isVolatile } from "./disk_file.ts";

/** Chunks to a group, which is one directory. */
const GROUP = 4096;

/** The chunk files below one directory. */
export class ChunkFiles {
  /** The directory. */
  readonly path: string;
  /** Whether they are gone when the power is. */
  readonly inMemory: boolean;
  /** Chunks of the region. */
  readonly count: number;
  readonly #size: number;
  readonly #chunkSize: number;
  readonly #readOnly: boolean;
  readonly #present: Bitmap;
  readonly #lookedUp: Bitmap;
  readonly #digits: number;
  readonly #groupDigits: number;
  /** Directories whose names were changed since they were last synced. */
  #changed = new Set<string>();

  /** Takes the files below `path` (absolute) as those of a region of `size` bytes. */
  constructor(path: string, options: { size: number; chunkSize: number; readOnly: boolean }) {
    this.path = path;
    this.inMemory = isVolatile(path);
    this.#size = options.size;
    this.#chunkSize = options.chunkSize;
    this.#readOnly = options.readOnly;
    this.count = Math.ceil(options.size / options.chunkSize);
    const groups = Math.ceil(this.count / GROUP);
    this.#present = new Bitmap(this.count);
    this.#lookedUp = new Bitmap(groups);
    this.#digits = (this.count - 1).toString(16).length;
    this.#groupDigits = (groups - 1).toString(16).length;
  }

  /** Bytes of a chunk, which are fewer in the last one. */
  lengthOf(chunk: number): number {
    return Math.min(this.#chunkSize, this.#size - chunk * this.#chunkSize);
  }

  /** Whether there is a file of this chunk. */
  has(chunk: number): boolean {
    this.#lookUp(Math.floor(chunk / GROUP));
    return this.#present.has(chunk);
  }

  /** The first chunk after `from` that is there where `from` is not, or the reverse; or `limit`. */
  runEnd(from: number, limit: number): number {
    for (let group = Math.floor(from / GROUP); group * GROUP < limit; group++) this.#lookUp(group);
    return this.#present.runEnd(from, limit);
  }

  /** Opens the file of a chunk, and makes it, all hole, where it is not there. */
  open(chunk: number): DiskFile {
    const { inMemory } = this;
    if (this.has(chunk)) {
      const flags = this.#readOnly ? O.RDONLY : O.RDWR;
      return new DiskFile(this.#pathOf(chunk), flags, { inMemory });
    }
    this.#makeGroup(this.#groupPath(chunk));
    const file = new DiskFile(this.#pathOf(chunk), O.RDWR | O.CREAT, { inMemory });
    this.#changed.add(this.#groupPath(chunk));
    this.#present.add(chunk);
    try {
      file.truncate(this.lengthOf(chunk));
      return file;
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Removes the file of a chunk that is there. */
  async remove(chunk: number): Promise<void> {
    const path = this.#pathOf(chunk);
    try {
      await unlink(path);
    } catch (error) {
      throw fromNodeError(error, "unlink", path);
    }
    this.#present.delete(chunk);
    this.#changed.add(this.#groupPath(chunk));
  }

  /** Makes durable which files there are. Not to be called again before it is done. */
  async syncNames(): Promise<void> {
    const changed = this.#changed;
    this.#changed = new Set();
    for (const path of changed) await syncNamesOf(path);
  }

  #makeGroup(path: string): void {
    if (isThere(path)) return;
    nodeCall("mkdir", path, () => mkdirSync(path));
    this.#changed.add(this.path);
  }

  #lookUp(group: number): void {
    if (this.#lookedUp.has(group)) return;
    const path = this.#groupPath(group * GROUP);
    if (isThere(path)) {
      for (const name of nodeCall("open", path, () => readdirSync(path))) {
        const chunk = parseInt(name, 16);
        if (this.#nameOf(chunk) === name && Math.floor(chunk / GROUP) === group) {
          this.#present.add(chunk);
        }
      }
    }
    this.#lookedUp.add(group);
  }

  #groupPath(chunk: number): string {
    const group = Math.floor(chunk / GROUP);
    return join(this.path, group.toString(16).padStart(this.#groupDigits, "0"));
  }

  #nameOf(chunk: number): string {
    return chunk.toString(16).padStart(this.#digits, "0");
  }

  #pathOf(chunk: number): string {
    return join(this.#groupPath(chunk), this.#nameOf(chunk));
  }
}

function isThere(path: string): boolean {
  return nodeCall("stat", path, () => statSync(path, { throwIfNoEntry: false })) !== undefined;
}

async function syncNamesOf(path: string): Promise<void> {
  const fd = nodeCall("open", path, () => openSync(path, O.RDONLY | O.DIRECTORY));
  try {
    await new Promise<void>((resolve, reject) => {
      fsync(fd, (error) => error ? reject(error) : resolve());
    });
  } catch (error) {
    throw fromNodeError(error, "fsync", path);
  } finally {
    closeSync(fd);
  }
}
