/**
 * PAGEMAP_SCAN of linux/fs.h (Linux 6.7): which pages of a process's memory are written, there,
 * swapped out and so on, as ranges; and written pages made clean again in the same step.
 *
 * @module
 */
import { ERRNO, errno, SystemError } from "./errno.ts";
import { close, O, open } from "./file.ts";
import { addressOf, libc } from "./libc.ts";

/** What a page is. */
export const PAGE_IS = {
  /** Registered with a userfaultfd that has WP_ASYNC. */
  WPALLOWED: 1 << 0,
  /** Written since it was write-protected by a userfaultfd with WP_ASYNC. */
  WRITTEN: 1 << 1,
  /** Of a file. */
  FILE: 1 << 2,
  /** In memory. */
  PRESENT: 1 << 3,
  /** In swap. */
  SWAPPED: 1 << 4,
  /** The page of zeroes that all share until they write. */
  PFNZERO: 1 << 5,
  /** Part of a huge page. */
  HUGE: 1 << 6,
  /** Soft-dirty. */
  SOFT_DIRTY: 1 << 7,
} as const;

/** What a scan does. */
export const PM_SCAN = {
  /** Write-protects the pages that match, which makes them clean. */
  WP_MATCHING: 1 << 0,
  /** Fails with EPERM at memory that is not registered with WP_ASYNC, rather than skip it. */
  CHECK_WPASYNC: 1 << 1,
} as const;

const PAGEMAP_SCAN = 0xc060_6610n; // _IOWR('f', 16, struct pm_scan_arg)
const HIGH = 0x1_0000_0000;
/** Words of 32 bits at which the fields of `struct pm_scan_arg` begin, and its bytes. */
const ARG = {
  SIZE: 0,
  FLAGS: 2,
  START: 4,
  END: 6,
  WALK_END: 8,
  VEC: 10,
  VEC_LEN: 12,
  MAX_PAGES: 14,
  INVERTED: 16,
  MASK: 18,
  ANYOF: 20,
  RETURN: 22,
  BYTES: 96,
} as const;
/** Likewise of `struct page_region`. */
const REGION = { START: 0, END: 2, CATEGORIES: 4, WORDS: 6 } as const;

const symbols = libc({
  // int ioctl(int fd, unsigned long request, void *argument), by the argument's address
  ioctl: { parameters: ["i32", "usize", "usize"], result: "i32" },
});

/** What a {@linkcode PagemapScanner} looks for; masks are bits of {@linkcode PAGE_IS}. */
export interface PagemapQuery {
  /** The process; this one unless told. */
  pid?: number;
  /** Bits of {@linkcode PM_SCAN}; none unless told. */
  flags?: number;
  /** A page matches where it is all of these. */
  all?: number;
  /** … and, unless this is empty, any of these. */
  any?: number;
  /** Of those two, what a page must not be instead. */
  inverted?: number;
  /** What {@linkcode PagemapScanner.categories} tells, and parts one range from the next. */
  report?: number;
  /** Ranges that one scan finds at most; 1024 unless told. */
  capacity?: number;
  /** Pages that one scan finds at most; any number unless told. */
  maxPages?: number;
}

/**
 * Finds pages of a process. After a scan, the ranges are read in place: `start(i)`, `end(i)` and
 * `categories(i)`; they come in the order of their addresses, and two may touch.
 */
export class PagemapScanner implements Disposable {
  #fd: number;
  readonly #path: string;
  readonly #arg: Uint32Array<ArrayBuffer>;
  readonly #argAddress: bigint;
  readonly #regions: Uint32Array<ArrayBuffer>;

  /**
   * Opens the pagemap of a process. Throws {@linkcode SystemError} (ENOENT: no such process; EACCES,
   * EPERM: it may not be looked at).
   */
  constructor(query: PagemapQuery) {
    const { capacity = 1024, maxPages = 0 } = query;
    if (!(capacity >= 1 && capacity <= 1 << 20)) {
      throw new RangeError(`Cannot hold ${capacity} ranges: from 1 to ${1 << 20}`);
    }
    // At least 4 ranges: a typed array of 64 bytes or less may lie on the moving V8 heap.
    this.#regions = new Uint32Array(Math.max(capacity, 4) * REGION.WORDS);
    const arg = this.#arg = new Uint32Array(ARG.BYTES / 4);
    this.#argAddress = BigInt(addressOf(new Uint8Array(arg.buffer)));
    arg[ARG.SIZE] = ARG.BYTES;
    arg[ARG.FLAGS] = query.flags ?? 0;
    put(arg, ARG.VEC, addressOf(new Uint8Array(this.#regions.buffer)));
    arg[ARG.VEC_LEN] = capacity;
    put(arg, ARG.MAX_PAGES, maxPages);
    arg[ARG.INVERTED] = query.inverted ?? 0;
    arg[ARG.MASK] = query.all ?? 0;
    arg[ARG.ANYOF] = query.any ?? 0;
    arg[ARG.RETURN] = query.report ?? 0;
    this.#path = `/proc/${query.pid ?? "self"}/pagemap`;
    this.#fd = open(this.#path, O.RDONLY);
  }

  /**
   * Looks at the pages from `start` (a multiple of the page size) to `end`, and answers how many
   * ranges it found. It stops early when it holds as many as it can, see {@linkcode walkEnd}: scan on
   * from there.
   *
   * Throws {@linkcode SystemError}: ENOTTY before Linux 6.7, EPERM by CHECK_WPASYNC, ENOMEM. With
   * WP_MATCHING, pages before the place of the failure are clean then and nobody was told: count all
   * of the range as written.
   */
  scan(start: number, end: number): number {
    const arg = this.#arg;
    put(arg, ARG.START, start);
    put(arg, ARG.END, end);
    const count = symbols().ioctl(this.#fd, PAGEMAP_SCAN, this.#argAddress);
    if (count >= 0) return count;
    const failed = errno();
    throw new SystemError({
      syscall: "scan pages",
      errno: failed,
      subject: `${this.#path} at 0x${start.toString(16)}`,
      hint: HINTS.get(failed),
    });
  }

  /** Where the last scan stopped: its end, rounded up to a page, where it looked at everything. */
  get walkEnd(): number {
    return get(this.#arg, ARG.WALK_END);
  }

  /** Where range `index` begins. */
  start(index: number): number {
    return get(this.#regions, index * REGION.WORDS + REGION.START);
  }

  /** The byte behind range `index`. */
  end(index: number): number {
    return get(this.#regions, index * REGION.WORDS + REGION.END);
  }

  /** What its pages are, of what was to be reported: bits of {@linkcode PAGE_IS}. */
  categories(index: number): number {
    return this.#regions[index * REGION.WORDS + REGION.CATEGORIES]!;
  }

  /** Closes the pagemap; a scan fails with EBADF from then on. */
  [Symbol.dispose](): void {
    const fd = this.#fd;
    if (fd === -1) return;
    this.#fd = -1;
    close(fd);
  }
}

const HINTS: ReadonlyMap<number, string> = new Map([
  [ERRNO.ENOTTY, "Linux 6.7 or later has PAGEMAP_SCAN"],
  [ERRNO.EPERM, "register all of it with a userfaultfd that has WP_ASYNC"],
]);

/** Whether this kernel can scan pages, and why not. */
export interface PagemapProbe {
  /** Whether it can. */
  available: boolean;
  /** Why not; missing where it can. */
  reason?: string;
}

/** Tries a scan of nothing. */
export function probePagemapScan(): PagemapProbe {
  try {
    using scanner = new PagemapScanner({ capacity: 1 });
    scanner.scan(0, 0);
    return { available: true };
  } catch (error) {
    if (error instanceof SystemError) return { available: false, reason: error.message };
    throw error;
  }
}

function put(words: Uint32Array, at: number, value: number): void {
  words[at] = value;
  words[at + 1] = value / HIGH;
}

function get(words: Uint32Array, at: number): number {
  return words[at]! + words[at + 1]! * HIGH;
}
