/**
 * errno of the calling thread, and the one error type that a failed system call becomes.
 *
 * errno is thread-local: each isolate (main or Worker) looks up the address of its own, once.
 * Read it in the very next expression after a synchronous call. A `nonblocking` call runs on
 * another thread, so its errno cannot be known here.
 *
 * @module
 */
import { libc } from "./libc.ts";

/** Linux error numbers by name (asm-generic/errno-base.h and errno.h; equal on x86_64 and aarch64). */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  ENOTBLK: 15,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ETXTBSY: 26,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EMLINK: 31,
  EPIPE: 32,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ELOOP: 40,
  ENODATA: 61,
  EPROTO: 71,
  EBADMSG: 74,
  EOVERFLOW: 75,
  ENOTSOCK: 88,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETUNREACH: 101,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  ENOTCONN: 107,
  ESHUTDOWN: 108,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EALREADY: 114,
  EINPROGRESS: 115,
  ESTALE: 116,
  EDQUOT: 122,
  ECANCELED: 125,
} as const;

/** The name of a Linux error, such as `ENOSPC`. */
export type ErrnoName = keyof typeof ERRNO;

const NAME_OF = new Map<number, ErrnoName>(
  Object.entries(ERRNO).map(([name, number]) => [number, name as ErrnoName]),
);

/** `ENOENT` for 2, or `errno 200` for a number without a name here. */
export function errnoName(errno: number): string {
  return NAME_OF.get(errno) ?? `errno ${errno}`;
}

/** What a {@linkcode SystemError} tells. */
export interface SystemErrorOptions {
  /** The call that failed, e.g. `mmap`. */
  syscall: string;
  /** The error number. */
  errno: number;
  /** What the call was tried on: a path, an address, a device. */
  subject?: string | undefined;
  /** What the reader can do about it. */
  hint?: string | undefined;
}

/** A system call failed: which one, on what, with which errno, and what to do next. */
export class SystemError extends Error {
  /** `SystemError`. */
  override readonly name = "SystemError";
  /** The call that failed. */
  readonly syscall: string;
  /** The error number, e.g. 28. */
  readonly errno: number;
  /** The error's name, e.g. `ENOSPC`. */
  readonly code: string;
  /** What the call was tried on. */
  readonly subject: string | undefined;
  /** What the reader can do about it. */
  readonly hint: string | undefined;

  /** Makes the error; the message is put together from the options. */
  constructor(options: SystemErrorOptions) {
    const code = errnoName(options.errno);
    const on = options.subject === undefined ? "" : ` on ${options.subject}`;
    const hint = options.hint === undefined ? "" : `; ${options.hint}`;
    super(`Cannot ${options.syscall}${on}: ${code}${hint}`);
    this.syscall = options.syscall;
    this.errno = options.errno;
    this.code = code;
    this.subject = options.subject;
    this.hint = options.hint;
  }
}

const symbols = libc({
  // int *__errno_location(void)
  __errno_location: { parameters: [], result: "pointer" },
});

let cell: Int32Array | undefined;

/** errno as the last synchronous libc call of this thread left it. */
export function errno(): number {
  cell ??= locateErrno();
  return cell[0]!;
}

/** Throws errno of the call that just failed on this thread as a {@linkcode SystemError}. */
export function throwErrno(syscall: string, subject?: string, hint?: string): never {
  throw new SystemError({ syscall, errno: errno(), subject, hint });
}

/** Returns a result that is not negative; throws errno as a {@linkcode SystemError} otherwise. */
export function checked(result: number, syscall: string, subject?: string, hint?: string): number {
  if (result < 0) throwErrno(syscall, subject, hint);
  return result;
}

function locateErrno(): Int32Array {
  const address = symbols().__errno_location();
  if (address === null) throw new Error("Cannot find errno: __errno_location returned NULL");
  return new Int32Array(Deno.UnsafePointerView.getArrayBuffer(address, 4));
}
