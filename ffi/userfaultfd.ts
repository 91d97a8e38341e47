/**
 * linux/userfaultfd.h: page faults of registered memory that a program resolves itself. This file
 * says which memory, and fills, protects and poisons its pages; `userfault_open.ts` makes the
 * descriptor, and `userfault_messages.ts` reads the faults.
 *
 * The thread that resolves faults must never touch registered memory itself, nor let the source of
 * a copy lie there: it would wait for itself.
 *
 * @module
 */
import { ERRNO, errno, SystemError } from "./errno.ts";
import { close } from "./file.ts";
import { addressOf, libc } from "./libc.ts";
import { pageSize } from "./mman.ts";

/** Which faults a registration asks for (`UFFDIO_REGISTER_MODE_*`). */
export const UFFD_REGISTER = {
  /** First touches of a page that is not there. */
  MISSING: 1,
  /** Writes to a page that {@linkcode Userfault.writeProtect} protects. */
  WP: 2,
  /** Touches of a page that its shared memory or huge page file has, but this mapping has not. */
  MINOR: 4,
} as const;

/** How a fill behaves (`UFFDIO_COPY_MODE_*`, alike for the other fills). */
export const UFFD_FILL = {
  /** Leaves who waits for the pages asleep, until {@linkcode Userfault.wake}. */
  DONTWAKE: 1,
  /** Puts the pages in place write-protected: copies, and from Linux 6.4 on CONTINUE. */
  WP: 2,
} as const;

/** What can be asked of a registered range: bits of the answer of {@linkcode Userfault.register}. */
export const UFFD_IOCTL = {
  REGISTER: 1 << 0,
  UNREGISTER: 1 << 1,
  WAKE: 1 << 2,
  COPY: 1 << 3,
  ZEROPAGE: 1 << 4,
  MOVE: 1 << 5,
  WRITEPROTECT: 1 << 6,
  CONTINUE: 1 << 7,
  POISON: 1 << 8,
} as const;

// _IOWR or _IOR (type 0xAA, number, size of the struct), equal on x86_64 and aarch64.
const UFFDIO_REGISTER = 0xc020_aa00n;
const UFFDIO_UNREGISTER = 0x8010_aa01n;
const UFFDIO_WAKE = 0x8010_aa02n;
const UFFDIO_COPY = 0xc028_aa03n;
const UFFDIO_ZEROPAGE = 0xc020_aa04n;
const UFFDIO_WRITEPROTECT = 0xc018_aa06n;
const UFFDIO_CONTINUE = 0xc020_aa07n;
const UFFDIO_POISON = 0xc020_aa08n;

const WRITEPROTECT_MODE = { WP: 1, DONTWAKE: 2 } as const;
const HIGH = 0x1_0000_0000;

const symbols = libc({
  // int ioctl(int fd, unsigned long request, void *argument), by the argument's address
  ioctl: { parameters: ["i32", "usize", "usize"], result: "i32" },
});

/**
 * What became of a fill, from the number that it answered:
 *
 * - `done`: every page is in place.
 * - `short`: the first pages are; go on behind them, and the next call tells what is in the way.
 * - `present`: the first page is there already, put there by somebody else (EEXIST). That
 *   is as good: wake who waits for it, go on behind it. Two refusals look the same, and a thread that
 *   is woken on them faults again at once: zeroes or poison for an anonymous page that is missing and
 *   write-protected ({@linkcode Userfault.zeroPage}), and a huge page where none is free and none
 *   was reserved.
 * - `changing`: the mapping is being changed by a thread that waits for its event to be read
 *   (EAGAIN). Read events, then fill again; filling again without reading never ends.
 * - `unmapped`: the range is not registered, or not all of it in one mapping (ENOENT): drop it, or
 *   fill page by page.
 * - `gone`: the process whose memory it is has ended (ESRCH).
 * - `full`: there is no memory, shared memory or huge page left for it (ENOMEM, ENOSPC).
 * - `unreadable`: the source of a copy cannot be read, or the page that CONTINUE would map is not
 *   in the file (EFAULT).
 * - `invalid`: the call itself is wrong, such as unaligned (EINVAL), or comes after the close
 *   (EBADF): a bug, see {@linkcode fillError}.
 */
export type FillOutcome =
  | "done"
  | "short"
  | "present"
  | "changing"
  | "unmapped"
  | "gone"
  | "full"
  | "unreadable"
  | "invalid";

/** Tells what the answer of a fill of `length` bytes means. */
export function fillOutcome(result: number, length: number): FillOutcome {
  if (result >= 0) return result === length ? "done" : "short";
  switch (-result) {
    case ERRNO.EEXIST:
      return "present";
    case ERRNO.EAGAIN:
      return "changing";
    case ERRNO.ENOENT:
      return "unmapped";
    case ERRNO.ESRCH:
      return "gone";
    case ERRNO.ENOMEM:
    case ERRNO.ENOSPC:
      return "full";
    case ERRNO.EFAULT:
      return "unreadable";
    default:
      return "invalid";
  }
}

const FILL_HINTS: Readonly<Record<FillOutcome, string | undefined>> = {
  done: undefined,
  short: "go on behind the pages that are in place",
  present: "wake who waits for the page, it is in place",
  changing: "read the events of the userfaultfd, then try again",
  unmapped: "register the range, and fill within one mapping at a time",
  gone: "the process whose memory it is has ended",
  full: "free memory, or reserve more shared memory or huge pages",
  unreadable: "the source must be mapped memory, and a page to continue with in its file",
  invalid: "pass whole pages of registered memory, with a descriptor that is open",
};

/**
 * The negative answer of a call of {@linkcode Userfault} as an error; `what` says what was tried,
 * such as `copy pages`.
 */
export function fillError(what: string, address: number, result: number): SystemError {
  return new SystemError({
    syscall: what,
    errno: -result,
    subject: `memory at ${hex(address)}`,
    hint: FILL_HINTS[fillOutcome(result, -1)],
  });
}

/**
 * What is asked of one userfaultfd. Make one in each isolate that uses the descriptor: each has a
 * request buffer of its own, so that no call allocates.
 *
 * Addresses and lengths are numbers, whole pages (huge pages where the memory has them). The fills
 * answer the bytes that are in place from the start of the range on, or, where that is none, a
 * negative errno; {@linkcode fillOutcome} says what to do.
 */
export class Userfault implements Disposable {
  #fd: number;
  // A struct of the largest request in 32-bit words, off the V8 heap, so that its address stays.
  readonly #words = new Uint32Array(32);
  readonly #address = BigInt(addressOf(new Uint8Array(this.#words.buffer)));

  /** Takes over a descriptor that was opened here, or came from another process or isolate. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The descriptor, which epoll finds readable while messages wait; -1 once it is closed. */
  get fd(): number {
    return this.#fd;
  }

  /**
   * Asks for the faults of a range: bits of {@linkcode UFFD_REGISTER}. Again with other bits, it
   * changes them. Answers what can be asked of the range, bits of {@linkcode UFFD_IOCTL}.
   *
   * Throws `RangeError` where the range is not whole pages, and {@linkcode SystemError}: EBUSY
   * (another userfaultfd has part of it), EINVAL (not mapped, or not memory of that kind), EPERM (a
   * shared mapping of a file that may not be written), ENOMEM (its process ended).
   */
  register(start: number, length: number, mode: number): number {
    const what = "register memory for page faults";
    const words = this.#range(what, start, length);
    words[4] = mode;
    words[5] = words[6] = words[7] = 0;
    this.#checked(UFFDIO_REGISTER, what, start, length);
    return words[6]!;
  }

  /**
   * Asks for no more faults of a range, and wakes who waits there; pages that are missing read as
   * zeroes from then on. Throws `RangeError` likewise, and {@linkcode SystemError} (EINVAL: not
   * mapped, or registered with another userfaultfd).
   */
  unregister(start: number, length: number): void {
    const what = "unregister memory";
    this.#range(what, start, length);
    this.#checked(UFFDIO_UNREGISTER, what, start, length);
  }

  /**
   * Puts missing pages in place with the bytes at `source`, which C reads during the call: keep
   * their buffer referenced. `mode` is bits of {@linkcode UFFD_FILL}.
   */
  copy(destination: number, source: number, length: number, mode = 0): number {
    const words = this.#words;
    words[0] = destination;
    words[1] = destination / HIGH;
    words[2] = source;
    words[3] = source / HIGH;
    words[4] = length;
    words[5] = length / HIGH;
    words[6] = mode;
    words[7] = words[8] = words[9] = 0;
    return this.#fill(UFFDIO_COPY, 8);
  }

  /**
   * Puts missing pages in place as zeroes, which are not write-protected; not for huge pages (see
   * `UFFD_IOCTL.ZEROPAGE`). Where writes are tracked, copy zeroes with `UFFD_FILL.WP` instead: on
   * anonymous pages that are write-protected while missing this answers EEXIST.
   */
  zeroPage(start: number, length: number, mode = 0): number {
    return this.#fillRange(UFFDIO_ZEROPAGE, start, length, mode);
  }

  /** Maps pages that their file has (MINOR). EFAULT where the file has them not. */
  continue(start: number, length: number, mode = 0): number {
    return this.#fillRange(UFFDIO_CONTINUE, start, length, mode);
  }

  /**
   * Makes every touch of missing pages a SIGBUS, until they are copied (Linux 6.6). On pages that are
   * write-protected while missing it answers EEXIST: unprotect them first.
   */
  poison(start: number, length: number, mode = 0): number {
    return this.#fillRange(UFFDIO_POISON, start, length, mode);
  }

  /**
   * Write-protects the pages of a range that was registered for WP; with WP_UNPOPULATED those that
   * are missing too. Answers `length`, or a negative errno that {@linkcode fillOutcome} explains.
   */
  writeProtect(start: number, length: number): number {
    return this.#setProtection(start, length, WRITEPROTECT_MODE.WP);
  }

  /** Lets the pages be written again, and wakes who waits to, unless told. Answers likewise. */
  writeUnprotect(start: number, length: number, wake = true): number {
    return this.#setProtection(start, length, wake ? 0 : WRITEPROTECT_MODE.DONTWAKE);
  }

  /** Wakes who waits for the pages of a range; they touch them again. Answers likewise. */
  wake(start: number, length: number): number {
    this.#setRange(start, length);
    return this.#ioctl(UFFDIO_WAKE) === 0 ? length : -errno();
  }

  /**
   * Closes the descriptor; whoever waits for a page goes on and finds zeroes, unless other copies of
   * it are open. Calls that come later answer `-EBADF`, rather than reach what has its number then.
   * Other isolates with the same number must have stopped before.
   */
  [Symbol.dispose](): void {
    const fd = this.#fd;
    if (fd === -1) return;
    this.#fd = -1;
    close(fd);
  }

  #ioctl(request: bigint): number {
    return symbols().ioctl(this.#fd, request, this.#address);
  }

  #setRange(start: number, length: number): void {
    const words = this.#words;
    words[0] = start;
    words[1] = start / HIGH;
    words[2] = length;
    words[3] = length / HIGH;
  }

  #range(what: string, start: number, length: number): Uint32Array {
    const page = pageSize();
    if (start % page !== 0 || length % page !== 0 || !(length > 0)) {
      const range = `${length} bytes at ${hex(start)}`;
      throw new RangeError(`Cannot ${what} on ${range}: pass multiples of the page size, ${page}`);
    }
    this.#setRange(start, length);
    return this.#words;
  }

  #checked(request: bigint, what: string, start: number, length: number): void {
    if (this.#ioctl(request) === 0) return;
    const failed = errno();
    const hints = request === UFFDIO_REGISTER ? REGISTER_HINTS : UNREGISTER_HINTS;
    throw new SystemError({
      syscall: what,
      errno: failed,
      subject: `${length} bytes at ${hex(start)}`,
      hint: hints.get(failed),
    });
  }

  #fillRange(request: bigint, start: number, length: number, mode: number): number {
    this.#setRange(start, length);
    const words = this.#words;
    words[4] = mode;
    words[5] = words[6] = words[7] = 0;
    return this.#fill(request, 6);
  }

  /** Runs a fill whose struct has the count of bytes at a word, and answers it or `-errno`. */
  #fill(request: bigint, at: number): number {
    const result = this.#ioctl(request);
    const failed = result === 0 ? 0 : errno();
    const low = this.#words[at]!, high = this.#words[at + 1]!;
    // Of a failure some kernels leave the count alone, which is 0, and others write the errno there.
    const none = high >= 0x8000_0000 || low + high === 0;
    return failed !== 0 && none ? -failed : low + high * HIGH;
  }

  #setProtection(start: number, length: number, mode: number): number {
    this.#setRange(start, length);
    this.#words[4] = mode;
    this.#words[5] = 0;
    return this.#ioctl(UFFDIO_WRITEPROTECT) === 0 ? length : -errno();
  }
}

const UNREGISTER_HINTS: ReadonlyMap<number, string> = new Map([
  [ERRNO.EINVAL, "it is not mapped, or another userfaultfd has it"],
  [ERRNO.EBADF, "the userfaultfd is closed"],
]);

const REGISTER_HINTS: ReadonlyMap<number, string> = new Map([
  [ERRNO.EBUSY, "another userfaultfd has part of it: unregister it there first"],
  [
    ERRNO.EINVAL,
    "map all of it first, as memory that the mode takes: for WP anonymous memory, from Linux " +
    "5.19 on shared memory and huge pages too, for MINOR one of those two",
  ],
  [ERRNO.EPERM, "open the file behind a shared mapping for writing"],
  [ERRNO.ENOMEM, "its process may have ended, or may not have more mappings (vm.max_map_count)"],
  [ERRNO.EBADF, "the userfaultfd is closed"],
]);

function hex(address: number): string {
  return `0x${address.toString(16)}`;
}
