/**
 * sys/mman.h: anonymous, shared and file mappings as typed arrays, and what is done with them.
 *
 * @module
 */
import { checked, ERRNO, errno, throwErrno } from "./errno.ts";
import { cString, libc } from "./libc.ts";

/** Protection bits of mmap(2). */
export const PROT = { NONE: 0, READ: 1, WRITE: 2, EXEC: 4 } as const;
/** Flags of mmap(2) (equal on x86_64 and aarch64). */
export const MAP = {
  SHARED: 0x01,
  PRIVATE: 0x02,
  FIXED: 0x10,
  ANONYMOUS: 0x20,
  NORESERVE: 0x4000,
  POPULATE: 0x8000,
  HUGETLB: 0x40000,
  /** With HUGETLB: pages of 2 MiB (log2 of the size, shifted by 26). */
  HUGE_2MB: 21 << 26,
} as const;
/** Flags of msync(2). */
export const MS = { ASYNC: 1, INVALIDATE: 2, SYNC: 4 } as const;
/** Advice of madvise(2). */
export const MADV = {
  NORMAL: 0,
  RANDOM: 1,
  SEQUENTIAL: 2,
  WILLNEED: 3,
  DONTNEED: 4,
  REMOVE: 9,
  DONTFORK: 10,
  HUGEPAGE: 14,
  NOHUGEPAGE: 15,
  /** Reads every page, so that each is in place (Linux 5.14). */
  POPULATE_READ: 22,
} as const;

const symbols = libc({
  // void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
  mmap: { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "usize" },
  // int munmap(void *addr, size_t length)
  munmap: { parameters: ["usize", "usize"], result: "i32" },
  // int msync(void *addr, size_t length, int flags)
  msync: { parameters: ["usize", "usize", "i32"], result: "i32" },
  // the same, off this thread: writing back a mapping may wait on a device
  msyncAsync: {
    name: "msync",
    parameters: ["usize", "usize", "i32"],
    result: "i32",
    nonblocking: true,
  },
  // int madvise(void *addr, size_t length, int advice)
  madvise: { parameters: ["usize", "usize", "i32"], result: "i32" },
  // int mlock(const void *addr, size_t len)
  mlock: { parameters: ["usize", "usize"], result: "i32" },
  // int munlock(const void *addr, size_t len)
  munlock: { parameters: ["usize", "usize"], result: "i32" },
  // long sysconf(int name); a page size fits in 32 bits
  sysconf: { parameters: ["i32"], result: "i32" },
  // int memfd_create(const char *name, unsigned int flags)
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
});

const SC_PAGESIZE = 30;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/** How {@linkcode Mapping.map} maps. */
export interface MapOptions {
  /** Bytes; a multiple of the page size is not needed. */
  length: number;
  /** Bits of {@linkcode PROT}; read and write unless told. */
  prot?: number;
  /** Bits of {@linkcode MAP}; private anonymous without reservation unless told. */
  flags?: number;
  /** The file behind the mapping; none (-1) unless told. */
  fd?: number;
  /** Where in the file the mapping begins, a multiple of the page size; 0 unless told. */
  offset?: number;
  /** What is mapped, for the text of an error. */
  subject?: string;
}

/**
 * Memory at an address that somebody in this process mapped and keeps mapped. It is wrapped as an
 * ArrayBuffer once, when its bytes are first asked for: V8 takes all that it has wrapped for memory
 * in use, and collects garbage for that. Disposing of it empties the view and all that were made of it.
 */
export class MemoryView implements Disposable {
  /** Where it lies, for C. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
  #bytes: Uint8Array<ArrayBuffer> | undefined;

  /** Wraps nothing yet. */
  constructor(address: number, length: number) {
    this.address = address;
    this.length = length;
  }

  /** The bytes; empty once it is disposed of. Throws `TypeError` at NULL. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes ??= wrap(this.address, this.length);
  }

  /** Empties {@linkcode bytes}; the memory stays. Again: does nothing. */
  [Symbol.dispose](): void {
    this.#bytes?.buffer.transfer(0);
    this.#bytes = new Uint8Array(0);
  }
}

function wrap(address: number, length: number): Uint8Array<ArrayBuffer> {
  const pointer = Deno.UnsafePointer.create(BigInt(address));
  if (pointer === null) throw new TypeError("Cannot wrap memory at NULL");
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, length));
}

/**
 * One mapping of this process. `unmap` empties the view before the memory goes, so that a stale view
 * has length 0 instead of crashing the process.
 */
export class Mapping implements Disposable {
  /** Where it lies, for C. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
  readonly #subject: string;
  readonly #view: MemoryView;
  #mapped = true;

  private constructor(address: bigint, length: number, subject: string) {
    this.address = Number(address);
    this.length = length;
    this.#subject = subject;
    this.#view = new MemoryView(this.address, length);
  }

  /** Maps memory. Throws {@linkcode SystemError} (ENOMEM, EACCES, ENODEV, …). */
  static map(options: MapOptions): Mapping {
    const { length, prot = PROT.READ | PROT.WRITE, fd = -1, offset = 0 } = options;
    const flags = options.flags ?? (MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE);
    const subject = options.subject ?? `${length} bytes of memory`;
    const address = symbols().mmap(0n, BigInt(length), prot, flags, fd, BigInt(offset));
    if (address === MAP_FAILED) throwErrno("mmap", subject);
    return new Mapping(address, length, subject);
  }

  /** The bytes, as those of a {@linkcode MemoryView}; empty after {@linkcode unmap}. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#view.bytes;
  }

  /** Writes a shared file mapping back and waits for it; throws {@linkcode SystemError} (EIO, …). */
  sync(): void {
    const result = symbols().msync(BigInt(this.address), BigInt(this.length), MS.SYNC);
    checked(result, "msync", this.#subject);
  }

  /** The same without holding this thread up; answers whether it succeeded (errno is lost). */
  async syncAsync(): Promise<boolean> {
    const address = BigInt(this.address);
    return await symbols().msyncAsync(address, BigInt(this.length), MS.SYNC) === 0;
  }

  /** Gives the kernel an advice of {@linkcode MADV} on part of the mapping (page-aligned). */
  advise(advice: number, offset = 0, length = this.length - offset): void {
    adviseAt(this.address + offset, length, advice, this.#subject);
  }

  /** Keeps the pages in memory; throws {@linkcode SystemError} (ENOMEM, EPERM by RLIMIT_MEMLOCK). */
  lock(): void {
    const result = symbols().mlock(BigInt(this.address), BigInt(this.length));
    checked(result, "mlock", this.#subject, "raise the limit with ulimit -l");
  }

  /** Takes back {@linkcode lock}. */
  unlock(): void {
    const result = symbols().munlock(BigInt(this.address), BigInt(this.length));
    checked(result, "munlock", this.#subject);
  }

  /** Empties {@linkcode bytes} and every view made from it, then unmaps. Again: does nothing. */
  unmap(): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    this.#view[Symbol.dispose]();
    const result = symbols().munmap(BigInt(this.address), BigInt(this.length));
    checked(result, "munmap", this.#subject);
  }

  /** As {@linkcode unmap}. */
  [Symbol.dispose](): void {
    this.unmap();
  }
}

/**
 * Gives the kernel an advice of {@linkcode MADV} on memory at a page-aligned address, as
 * {@linkcode Mapping.advise} does for a mapping of one's own. Throws {@linkcode SystemError}.
 */
export function adviseAt(address: number, length: number, advice: number, subject: string): void {
  const result = symbols().madvise(BigInt(address), BigInt(length), advice);
  checked(result, "madvise", subject);
}

/** Bytes of a page of the larger size, on x86_64 and on aarch64 with pages of 4 KiB. */
const HUGE_PAGE = 2 << 20;

/**
 * Has the kernel hand out memory that is still to be written by pages of 2 MiB, those that lie whole in
 * it and where it has those. Throws {@linkcode SystemError}.
 */
export function adviseHugePages(address: number, length: number, subject: string): void {
  const start = Math.ceil(address / HUGE_PAGE) * HUGE_PAGE;
  const bytes = address + length - start;
  if (bytes < HUGE_PAGE) return;
  const result = symbols().madvise(BigInt(start), BigInt(bytes), MADV.HUGEPAGE);
  // A kernel that was built without them says EINVAL.
  if (result < 0 && errno() !== ERRNO.EINVAL) throwErrno("madvise", subject);
}

let bytesOfPage: number | undefined;

/** Bytes of a page of this kernel: 4096 on x86_64, up to 65536 on aarch64. */
export function pageSize(): number {
  return bytesOfPage ??= symbols().sysconf(SC_PAGESIZE);
}

/** Opens an anonymous file in memory (close-on-exec). Throws {@linkcode SystemError}. */
export function memfdCreate(name: string): number {
  const MFD_CLOEXEC = 1;
  return checked(symbols().memfd_create(cString(name), MFD_CLOEXEC), "memfd_create", name);
}
