/**
 * What the file system holds: a root directory, and in it one regular file of a fixed size.
 *
 * @module
 */
import { ERRNO } from "../../ffi/errno.ts";
import {
  type Attributes,
  type DirectoryEntry,
  FATTR,
  REPLY_SIZE,
  ROOT_NODE,
  S_IF,
  SETATTR_IN,
  TRANSFER_IN,
  writeAttributes,
  writeDirectoryEntry,
  writeEntry,
} from "./protocol.ts";
import type { Request } from "./request.ts";

/** The node of the file. */
export const FILE_NODE = 2;

/**
 * What programs are advised to move at a time: C's stdio takes its buffer size from here, and each
 * write(2) of a file here costs a request.
 */
const ADVISED_BLOCK = 128 << 10;

/** How the file looks. */
export interface FileOptions {
  /** Its name in the root directory. */
  fileName: string;
  /** Its permission bits; only its owner may read and write it unless told. */
  mode: number;
  /** Owner of file and directory; who runs this process unless told. */
  uid: number;
  /** Group of file and directory; that of this process unless told. */
  gid: number;
}

/**
 * Answers requests that concern names and attributes: each method writes the body of the reply and
 * answers its bytes, or a negative errno.
 */
export class Nodes {
  readonly #root: Attributes;
  readonly #file: Attributes;
  readonly #name: Uint8Array<ArrayBuffer>;
  readonly #entries: DirectoryEntry[];

  /** Makes the two nodes. */
  constructor(size: number, options: FileOptions) {
    const { uid, gid, mode } = options;
    const blockSize = ADVISED_BLOCK;
    const modified = Date.now();
    const common = { uid, gid, blockSize, modified };
    this.#root = { ...common, node: ROOT_NODE, size: 0, mode: S_IF.DIRECTORY | 0o755, links: 2 };
    this.#file = { ...common, node: FILE_NODE, size, mode: S_IF.REGULAR | mode, links: 1 };
    this.#name = new TextEncoder().encode(options.fileName);
    const name = (text: string) => new TextEncoder().encode(text);
    this.#entries = [
      { node: ROOT_NODE, type: S_IF.DIRECTORY, name: name(".") },
      { node: ROOT_NODE, type: S_IF.DIRECTORY, name: name("..") },
      { node: FILE_NODE, type: S_IF.REGULAR, name: this.#name },
    ];
  }

  /** The content of the file changed now. */
  touch(): void {
    this.#file.modified = Date.now();
  }

  /** LOOKUP: which node a name of the root leads to. */
  lookup(request: Request): number {
    if (request.node !== ROOT_NODE) return -ERRNO.ENOTDIR;
    const name = request.copyBody();
    const found = name.length === this.#name.length + 1 && name.at(-1) === 0 &&
      this.#name.every((byte, index) => byte === name[index]);
    writeEntry(request.view, request.data, found ? this.#file : undefined);
    return REPLY_SIZE.ENTRY;
  }

  /** GETATTR. */
  attributes(request: Request): number {
    const node = this.#of(request);
    if (node === undefined) return -ERRNO.ENOENT;
    writeAttributes(request.view, request.data, node);
    return REPLY_SIZE.ATTRIBUTES;
  }

  /** SETATTR: anything but the size, which is the region's. */
  setAttributes(request: Request): number {
    const node = this.#of(request);
    if (node === undefined) return -ERRNO.ENOENT;
    const valid = request.u32(SETATTR_IN.VALID);
    if ((valid & FATTR.SIZE) !== 0 && request.u64(SETATTR_IN.FILE_SIZE) !== node.size) {
      return -ERRNO.EPERM;
    }
    if ((valid & FATTR.MODE) !== 0) {
      node.mode = (node.mode & ~0o7777) | (request.u32(SETATTR_IN.MODE) & 0o7777);
    }
    if ((valid & FATTR.UID) !== 0) node.uid = request.u32(SETATTR_IN.UID);
    if ((valid & FATTR.GID) !== 0) node.gid = request.u32(SETATTR_IN.GID);
    if ((valid & FATTR.MTIME_NOW) !== 0) node.modified = Date.now();
    else if ((valid & FATTR.MTIME) !== 0) node.modified = timeOf(request);
    return this.attributes(request);
  }

  /** READDIR of the root. */
  list(request: Request): number {
    if (request.node !== ROOT_NODE) return -ERRNO.ENOTDIR;
    const room = Math.min(request.u32(TRANSFER_IN.LENGTH), DIRECTORY_BYTES);
    const first = request.u64(TRANSFER_IN.OFFSET);
    let length = 0;
    for (let index = first; index < this.#entries.length; index++) {
      const at = request.data + length;
      const entry = this.#entries[index]!;
      const added = writeDirectoryEntry(request.view, at, room - length, entry, index + 1);
      if (added === 0) break;
      length += added;
    }
    return length;
  }

  #of(request: Request): Attributes | undefined {
    if (request.node === FILE_NODE) return this.#file;
    return request.node === ROOT_NODE ? this.#root : undefined;
  }
}

/** Room for the three names and their records. */
const DIRECTORY_BYTES = 1024;

function timeOf(request: Request): number {
  const seconds = request.u64(SETATTR_IN.MTIME);
  if (!Number.isSafeInteger(seconds * 1000)) return 0;
  return seconds * 1000 + request.u32(SETATTR_IN.MTIME_NSEC) / 1e6;
}
