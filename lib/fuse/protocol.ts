/**
 * Messages between the kernel and a FUSE file system: numbers, where their fields lie, and how
 * replies are written (linux/fuse.h, protocol 7.31; nothing later is used). All integers are in
 * the byte order of the machine, which is little-endian on every architecture served.
 *
 * @module
 */

/** The protocol spoken here: Linux 5.4 and later have it. */
export const VERSION = { MAJOR: 7, MINOR: 31 } as const;

/** Kinds of requests. */
export const OPCODE = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  CREATE: 35,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  RENAME2: 45,
  LSEEK: 46,
  TMPFILE: 51,
} as const;

/** Features that INIT settles. */
export const FEATURE = {
  ASYNC_READ: 1 << 0,
  BIG_WRITES: 1 << 5,
  ASYNC_DIO: 1 << 15,
  PARALLEL_DIROPS: 1 << 18,
  HANDLE_KILLPRIV: 1 << 19,
  MAX_PAGES: 1 << 22,
} as const;

/** Flags of a reply to OPEN and OPENDIR. */
export const FOPEN = { KEEP_CACHE: 1 << 1, CACHE_DIR: 1 << 3 } as const;

/** What a SETATTR sets. */
export const FATTR = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  MTIME: 1 << 5,
  MTIME_NOW: 1 << 8,
} as const;

/** Types in `mode` (sys/stat.h). */
export const S_IF = { DIRECTORY: 0o040000, REGULAR: 0o100000 } as const;

/** The node of the root directory. */
export const ROOT_NODE = 1;

/** `struct fuse_in_header`: the start of every request. */
export const IN_HEADER = { LEN: 0, OPCODE: 4, UNIQUE: 8, NODE: 16, PID: 32, SIZE: 40 } as const;
/** `struct fuse_out_header`: the start of every reply. */
export const OUT_HEADER = { LEN: 0, ERROR: 4, UNIQUE: 8, SIZE: 16 } as const;

/** `struct fuse_init_in`; `SIZE` is what kernels before 7.36 send. */
export const INIT_IN = { MAJOR: 0, MINOR: 4, MAX_READAHEAD: 8, FLAGS: 12, SIZE: 16 } as const;
/** `struct fuse_setattr_in`. */
export const SETATTR_IN = {
  VALID: 0,
  FILE_SIZE: 16,
  MTIME: 40,
  MTIME_NSEC: 60,
  MODE: 68,
  UID: 76,
  GID: 80,
  SIZE: 88,
} as const;
/** `struct fuse_open_in`. */
export const OPEN_IN = { FLAGS: 0, SIZE: 8 } as const;
/** `struct fuse_release_in`. */
export const RELEASE_IN = { HANDLE: 0, SIZE: 24 } as const;
/** `struct fuse_read_in` and the equal `struct fuse_write_in`, after which the bytes follow. */
export const TRANSFER_IN = { HANDLE: 0, OFFSET: 8, LENGTH: 16, SIZE: 40 } as const;
/** `struct fuse_interrupt_in`. */
export const INTERRUPT_IN = { UNIQUE: 0, SIZE: 8 } as const;
/** `struct fuse_fallocate_in`. */
export const FALLOCATE_IN = { OFFSET: 8, LENGTH: 16, MODE: 24, SIZE: 32 } as const;
/** `struct fuse_lseek_in`. */
export const LSEEK_IN = { OFFSET: 8, WHENCE: 16, SIZE: 24 } as const;

/** Bytes that the body of a request has at least; any other request needs none. */
export const LEAST_BODY: Readonly<Record<number, number>> = {
  [OPCODE.LOOKUP]: 1,
  [OPCODE.SETATTR]: SETATTR_IN.SIZE,
  [OPCODE.OPEN]: OPEN_IN.SIZE,
  [OPCODE.READ]: TRANSFER_IN.SIZE,
  [OPCODE.WRITE]: TRANSFER_IN.SIZE,
  [OPCODE.RELEASE]: RELEASE_IN.SIZE,
  [OPCODE.INIT]: INIT_IN.SIZE,
  [OPCODE.READDIR]: TRANSFER_IN.SIZE,
  [OPCODE.INTERRUPT]: INTERRUPT_IN.SIZE,
  [OPCODE.FALLOCATE]: FALLOCATE_IN.SIZE,
  [OPCODE.LSEEK]: LSEEK_IN.SIZE,
};

/** What the kernel may send and ask for in one request, and keep for itself. */
export interface Limits {
  /** Protocol minor; {@linkcode VERSION}'s unless the kernel's is lower. */
  minor: number;
  /** Bits of {@linkcode FEATURE}. */
  flags: number;
  /** Bytes read ahead of a sequential reader at most. */
  maxReadahead: number;
  /** Asynchronous requests at a time before the kernel holds more back. */
  maxBackground: number;
  /** Bytes of one WRITE at most; a multiple of the page size. */
  maxWrite: number;
  /** Pages of one READ or WRITE at most; heard only with {@linkcode FEATURE}.MAX_PAGES. */
  maxPages: number;
}

/** Attributes of a node. */
export interface Attributes {
  /** Inode number. */
  node: number;
  /** Bytes. */
  size: number;
  /** Type of {@linkcode S_IF} and permission bits. */
  mode: number;
  /** Names that lead to it. */
  links: number;
  /** Owner. */
  uid: number;
  /** Group. */
  gid: number;
  /** Bytes that programs are advised to move at a time. */
  blockSize: number;
  /** When its content changed last, in ms since 1970; stands for all three times. */
  modified: number;
}

/** How a file system stands, for statfs(2). */
export interface Statistics {
  /** Bytes of a block. */
  blockSize: number;
  /** Blocks in all; none of them is free. */
  blocks: number;
  /** Files in all. */
  files: number;
}

/** One name in a directory. */
export interface DirectoryEntry {
  /** The node it leads to. */
  node: number;
  /** The type of that node, of {@linkcode S_IF}. */
  type: number;
  /** The name, in UTF-8. */
  name: Uint8Array;
}

/** Seconds for which the kernel may keep what it was told: for ever, as jiffies count. */
const VALID_SECONDS = 0x7fff_ffff;
const SECTOR = 512;
const WORD = 0x1_0000_0000;

/** Bytes of the replies that {@linkcode writeInit} and the others below it write. */
export const REPLY_SIZE = {
  INIT: 64,
  ENTRY: 128,
  ATTRIBUTES: 104,
  OPEN: 16,
  WRITE: 8,
  STATFS: 80,
  LSEEK: 8,
} as const;

/** Reads a u64; beyond 2^53 the number is inexact, and not safe, as callers check. */
export function readU64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * WORD;
}

/** Writes a u64 from a safe integer. */
export function writeU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value, true);
  view.setUint32(at + 4, value / WORD, true);
}

/** Writes the out header for the request whose header lies at `request`; `errno` 0 is success. */
export function writeOutHeader(
  view: DataView,
  at: number,
  request: number,
  errno: number,
  bodyLength: number,
): void {
  view.setUint32(at + OUT_HEADER.LEN, OUT_HEADER.SIZE + bodyLength, true);
  view.setInt32(at + OUT_HEADER.ERROR, -errno, true);
  view.setUint32(at + OUT_HEADER.UNIQUE, view.getUint32(request + IN_HEADER.UNIQUE, true), true);
  const high = view.getUint32(request + IN_HEADER.UNIQUE + 4, true);
  view.setUint32(at + OUT_HEADER.UNIQUE + 4, high, true);
}

/** Writes `struct fuse_init_out`. */
export function writeInit(view: DataView, at: number, limits: Limits): void {
  clear(view, at, REPLY_SIZE.INIT);
  view.setUint32(at, VERSION.MAJOR, true);
  view.setUint32(at + 4, limits.minor, true);
  view.setUint32(at + 8, limits.maxReadahead, true);
  view.setUint32(at + 12, limits.flags, true);
  view.setUint16(at + 16, limits.maxBackground, true);
  view.setUint16(at + 18, Math.ceil(limits.maxBackground * 0.75), true); // congestion_threshold
  view.setUint32(at + 20, limits.maxWrite, true);
  view.setUint32(at + 24, 1, true); // time_gran
  view.setUint16(at + 28, limits.maxPages, true);
}

/**
 * Writes `struct fuse_entry_out` for a name that leads to a node, or, with nothing, for a name that
 * is known not to exist.
 */
export function writeEntry(view: DataView, at: number, attributes: Attributes | undefined): void {
  clear(view, at, REPLY_SIZE.ENTRY);
  writeU64(view, at + 16, VALID_SECONDS); // entry_valid
  if (attributes === undefined) return;
  writeU64(view, at, attributes.node);
  writeU64(view, at + 24, VALID_SECONDS); // attr_valid
  writeAttr(view, at + 40, attributes);
}

/** Writes `struct fuse_attr_out`. */
export function writeAttributes(view: DataView, at: number, attributes: Attributes): void {
  clear(view, at, REPLY_SIZE.ATTRIBUTES);
  writeU64(view, at, VALID_SECONDS); // attr_valid
  writeAttr(view, at + 16, attributes);
}

/** Writes `struct fuse_open_out`; `flags` are of {@linkcode FOPEN}. */
export function writeOpen(view: DataView, at: number, handle: number, flags: number): void {
  clear(view, at, REPLY_SIZE.OPEN);
  writeU64(view, at, handle);
  view.setUint32(at + 8, flags, true);
}

/** Writes `struct fuse_write_out`. */
export function writeWritten(view: DataView, at: number, length: number): void {
  view.setUint32(at, length, true);
  view.setUint32(at + 4, 0, true);
}

/** Writes `struct fuse_statfs_out`. */
export function writeStatistics(view: DataView, at: number, statistics: Statistics): void {
  clear(view, at, REPLY_SIZE.STATFS);
  writeU64(view, at, statistics.blocks);
  writeU64(view, at + 24, statistics.files);
  view.setUint32(at + 40, statistics.blockSize, true);
  view.setUint32(at + 44, NAME_LIMIT, true);
  view.setUint32(at + 48, statistics.blockSize, true); // frsize
}

/** Bytes of the longest file name. */
export const NAME_LIMIT = 255;

/**
 * Writes a `struct fuse_dirent`, or nothing where less than `room` bytes are left for it; answers
 * its bytes. `next` is the offset at which READDIR goes on after it.
 */
export function writeDirectoryEntry(
  view: DataView,
  at: number,
  room: number,
  entry: DirectoryEntry,
  next: number,
): number {
  const length = (24 + entry.name.length + 7) & ~7;
  if (length > room) return 0;
  clear(view, at, length);
  writeU64(view, at, entry.node);
  writeU64(view, at + 8, next);
  view.setUint32(at + 16, entry.name.length, true);
  view.setUint32(at + 20, entry.type >> 12, true);
  for (let index = 0; index < entry.name.length; index++) {
    view.setUint8(at + 24 + index, entry.name[index]!);
  }
  return length;
}

function writeAttr(view: DataView, at: number, attributes: Attributes): void {
  const seconds = Math.floor(attributes.modified / 1000);
  const nanoseconds = Math.floor((attributes.modified - seconds * 1000) * 1e6);
  writeU64(view, at, attributes.node);
  writeU64(view, at + 8, attributes.size);
  writeU64(view, at + 16, Math.ceil(attributes.size / SECTOR));
  for (let time = 0; time < 3; time++) { // atime, mtime, ctime
    writeU64(view, at + 24 + time * 8, seconds);
    view.setUint32(at + 48 + time * 4, nanoseconds, true);
  }
  view.setUint32(at + 60, attributes.mode, true);
  view.setUint32(at + 64, attributes.links, true);
  view.setUint32(at + 68, attributes.uid, true);
  view.setUint32(at + 72, attributes.gid, true);
  view.setUint32(at + 80, attributes.blockSize, true);
}

function clear(view: DataView, at: number, length: number): void {
  for (let offset = 0; offset < length; offset += 4) view.setUint32(at + offset, 0, true);
}
