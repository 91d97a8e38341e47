/**
 * fcntl.h, unistd.h, sys/uio.h and linux/falloc.h: file descriptors by number, positioned I/O,
 * holes and durability.
 *
 * @module
 */
import { checked } from "./errno.ts";
import { cString, libc, perArch } from "./libc.ts";

/** Flags of open(2). */
export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  CREAT: 0o100,
  EXCL: 0o200,
  TRUNC: 0o1000,
  NONBLOCK: 0o4000,
  DIRECT: perArch({ x86_64: 0o40000, aarch64: 0o200000 }),
  DIRECTORY: perArch({ x86_64: 0o200000, aarch64: 0o40000 }),
  CLOEXEC: 0o2000000,
} as const;

/** Origins of lseek(2); DATA and HOLE find what is allocated. */
export const SEEK = { SET: 0, CUR: 1, END: 2, DATA: 3, HOLE: 4 } as const;

/** Modes of fallocate(2) (linux/falloc.h). */
export const FALLOC = { KEEP_SIZE: 1, PUNCH_HOLE: 2, ZERO_RANGE: 0x10 } as const;

/** Operations of flock(2) (asm-generic/fcntl.h names them alike). */
export const LOCK = { SH: 1, EX: 2, NB: 4, UN: 8 } as const;

const RWF_NOWAIT = 8;
const PATH_MAX = 4096;
const KERNEL_TEXT_STEP = 64 << 10;

const symbols = libc({
  // int open(const char *pathname, int flags, mode_t mode)
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  // the same, off this thread: an open may wait on a server that lives in this process
  openAsync: {
    name: "open",
    parameters: ["buffer", "i32", "u32"],
    result: "i32",
    nonblocking: true,
  },
  // int close(int fd)
  close: { parameters: ["i32"], result: "i32" },
  closeAsync: { name: "close", parameters: ["i32"], result: "i32", nonblocking: true },
  // ssize_t pread(int fd, void *buf, size_t count, off_t offset); counts stay under 2^31 here
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "i32" },
  // ssize_t pwrite(int fd, const void *buf, size_t count, off_t offset)
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "i32" },
  // the same, off this thread: a copy into the page cache may wait for the disk to catch up
  pwriteAsync: {
    name: "pwrite",
    parameters: ["i32", "buffer", "usize", "i64"],
    result: "i32",
    nonblocking: true,
  },
  // ssize_t preadv2(int fd, const struct iovec *iov, int iovcnt, off_t offset, int flags)
  preadv2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "i32" },
  // off_t lseek(int fd, off_t offset, int whence)
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  // int fallocate(int fd, int mode, off_t offset, off_t len)
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  // int ftruncate(int fd, off_t length)
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  // int fdatasync(int fd)
  fdatasync: { parameters: ["i32"], result: "i32" },
  // int fsync(int fd), off this thread: it waits for a device, which this process may serve
  fsyncAsync: { name: "fsync", parameters: ["i32"], result: "i32", nonblocking: true },
  // int sync_file_range(int fd, off64_t offset, off64_t nbytes, unsigned int flags), off this thread
  syncFileRangeAsync: {
    name: "sync_file_range",
    parameters: ["i32", "i64", "i64", "u32"],
    result: "i32",
    nonblocking: true,
  },
  // int syncfs(int fd), off this thread
  syncfsAsync: { name: "syncfs", parameters: ["i32"], result: "i32", nonblocking: true },
  // int flock(int fd, int operation)
  flock: { parameters: ["i32", "i32"], result: "i32" },
  // ssize_t readlink(const char *pathname, char *buf, size_t bufsiz); counts stay under 2^31 here
  readlink: { parameters: ["buffer", "buffer", "usize"], result: "i32" },
  // int fcntl(int fd, int cmd, int arg)
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
});

/** Opens a path (close-on-exec is added). Throws {@linkcode SystemError}. */
export function open(path: string, flags: number, mode = 0o666): number {
  return checked(symbols().open(cString(path), flags | O.CLOEXEC, mode), "open", path);
}

/** Opens off this thread; answers the descriptor, or a negative number (errno is lost). */
export function openAsync(path: string, flags: number, mode = 0o666): Promise<number> {
  return symbols().openAsync(cString(path), flags | O.CLOEXEC, mode);
}

/** Closes a descriptor. Throws {@linkcode SystemError} (EBADF, or EIO of a write-back). */
export function close(fd: number): void {
  checked(symbols().close(fd), "close", `descriptor ${fd}`);
}

/** Closes off this thread: the last close of a device or FUSE file may wait on its server. */
export async function closeAsync(fd: number): Promise<boolean> {
  return await symbols().closeAsync(fd) === 0;
}

/** Reads at an offset; answers the count, 0 at the end, or -1 with errno set. Waits for the disk. */
export function pread(fd: number, buffer: Uint8Array, offset: number): number {
  return symbols().pread(fd, buffer as BufferSource, BigInt(buffer.length), BigInt(offset));
}

/** Writes at an offset; answers the count, or -1 with errno set. */
export function pwrite(fd: number, buffer: Uint8Array, offset: number): number {
  return symbols().pwrite(fd, buffer as BufferSource, BigInt(buffer.length), BigInt(offset));
}

/**
 * Writes at an offset, off this thread; answers the count, or a negative number (errno is lost).
 * The buffer must stay where it is until then.
 */
export function pwriteAsync(fd: number, buffer: Uint8Array, offset: number): Promise<number> {
  const { length } = buffer;
  return symbols().pwriteAsync(fd, buffer as BufferSource, BigInt(length), BigInt(offset));
}

/**
 * Reads what the page cache holds into an iovec table (see {@linkcode Iovec}), without waiting for
 * a disk: -1 with EAGAIN where it would have to, EOPNOTSUPP where the file system cannot tell.
 */
export function preadCached(fd: number, iov: Uint8Array, count: number, offset: number): number {
  return symbols().preadv2(fd, iov as BufferSource, count, BigInt(offset), RWF_NOWAIT);
}

/**
 * The text of a file that the kernel makes as it is read (/proc, /sys), by a plain descriptor: the
 * runtime opens nothing there without full permission. Throws {@linkcode SystemError}.
 */
export function readKernelText(path: string): string {
  const fd = open(path, O.RDONLY);
  try {
    const decoder = new TextDecoder();
    const buffer = new Uint8Array(KERNEL_TEXT_STEP);
    let text = "";
    for (let offset = 0;;) {
      const length = checked(pread(fd, buffer, offset), "read", path);
      if (length === 0) return text + decoder.decode();
      text += decoder.decode(buffer.subarray(0, length), { stream: true });
      offset += length;
    }
  } finally {
    close(fd);
  }
}

/**
 * Where a symbolic link points; what a descriptor is for `/proc/self/fd/N`, such as
 * `anon_inode:[eventfd]`, without a word to the server of its file. Throws {@linkcode SystemError}.
 */
export function readLink(path: string): string {
  const bytes = new Uint8Array(PATH_MAX);
  const length = symbols().readlink(cString(path), bytes, BigInt(bytes.length));
  return new TextDecoder().decode(bytes.subarray(0, checked(length, "readlink", path)));
}

/** lseek(2); answers the position, or -1 with errno set (ENXIO: no data after the offset). */
export function lseek(fd: number, offset: number, whence: number): number {
  return Number(symbols().lseek(fd, BigInt(offset), whence));
}

/** fallocate(2); answers 0, or -1 with errno set (EOPNOTSUPP: this file system cannot). */
export function fallocate(fd: number, mode: number, offset: number, length: number): number {
  return symbols().fallocate(fd, mode, BigInt(offset), BigInt(length));
}

/** Sets a file's size. Throws {@linkcode SystemError}. */
export function ftruncate(fd: number, length: number, subject: string): void {
  checked(symbols().ftruncate(fd, BigInt(length)), "ftruncate", subject);
}

/** fdatasync(2) on this thread; answers 0, or -1 with errno set. */
export function fdatasync(fd: number): number {
  return symbols().fdatasync(fd);
}

/** fsync(2) off this thread; answers whether all that was written is durable (errno is lost). */
export async function fsyncAsync(fd: number): Promise<boolean> {
  return await symbols().fsyncAsync(fd) === 0;
}

/** SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER of linux/fs.h. */
const WRITE_BACK_AND_WAIT = 7;

/**
 * sync_file_range(2) off this thread: answers whether all pages of a file or device that were dirty
 * are written to what serves it, which need not have made them durable (errno is lost).
 */
export async function writeBackAsync(fd: number): Promise<boolean> {
  return await symbols().syncFileRangeAsync(fd, 0n, 0n, WRITE_BACK_AND_WAIT) === 0;
}

/**
 * syncfs(2) off this thread: answers whether all that anyone wrote to the file system of a
 * descriptor is durable (errno is lost).
 */
export async function syncfsAsync(fd: number): Promise<boolean> {
  return await symbols().syncfsAsync(fd) === 0;
}

/** flock(2) with bits of {@linkcode LOCK}; answers 0, or -1 with errno set (EAGAIN: held already). */
export function flock(fd: number, operation: number): number {
  return symbols().flock(fd, operation);
}

/** Makes reads and writes of a descriptor return EAGAIN instead of waiting. */
export function setNonblocking(fd: number): void {
  const F_GETFL = 3, F_SETFL = 4;
  const flags = checked(symbols().fcntl(fd, F_GETFL, 0), "fcntl", `descriptor ${fd}`);
  checked(symbols().fcntl(fd, F_SETFL, flags | O.NONBLOCK), "fcntl", `descriptor ${fd}`);
}

/**
 * Lets programs that are started from now on inherit a descriptor, which they do not otherwise.
 * Throws {@linkcode SystemError}.
 */
export function makeInheritable(fd: number): void {
  const F_SETFD = 2;
  checked(symbols().fcntl(fd, F_SETFD, 0), "fcntl", `descriptor ${fd}`);
}

/**
 * A `struct iovec` table that is written with plain numbers, so that scatter and gather I/O makes
 * no BigInt and no view a request (little-endian, as both architectures are).
 */
export class Iovec {
  /** The table, as the C functions take it. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Entries that it holds at most. */
  readonly capacity: number;
  readonly #words: Uint32Array<ArrayBuffer>;

  /** Makes a table of `capacity` entries; the kernel takes 1024 at most (UIO_MAXIOV). */
  constructor(capacity: number) {
    if (capacity < 1 || capacity > 1024) throw new RangeError("Cannot hold over 1024 iovecs");
    this.capacity = capacity;
    // At least 8 entries: a typed array of 64 bytes or less may lie on the moving V8 heap.
    this.#words = new Uint32Array(Math.max(capacity, 8) * 4);
    this.bytes = new Uint8Array(this.#words.buffer);
  }

  /** Entry `index` becomes `length` bytes at `address`. */
  set(index: number, address: number, length: number): void {
    const word = index * 4;
    this.#words[word] = address;
    this.#words[word + 1] = address / 0x1_0000_0000;
    this.#words[word + 2] = length;
    this.#words[word + 3] = length / 0x1_0000_0000;
  }
}
