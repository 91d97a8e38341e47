/**
 * What the relay asks of libc: pipes that bytes go through without a copy, sleep to the microsecond,
 * and to go first. None of it is of use to the library.
 *
 * @module
 */
import { checked, ERRNO, errno, throwErrno } from "../ffi/errno.ts";
import { close, O } from "../ffi/file.ts";
import { libc } from "../ffi/libc.ts";

const symbols = libc({
  // int pipe2(int pipefd[2], int flags)
  pipe2: { parameters: ["buffer", "i32"], result: "i32" },
  // int fcntl(int fd, int cmd, int arg)
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // ssize_t splice(int fd_in, off_t *off_in, int fd_out, off_t *off_out, size_t len, unsigned flags)
  splice: {
    parameters: ["i32", "pointer", "i32", "pointer", "usize", "u32"],
    result: "i32",
  },
  // int shutdown(int sockfd, int how)
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  // int ppoll(struct pollfd *fds, nfds_t nfds, const struct timespec *timeout, const sigset_t *mask)
  ppoll: { parameters: ["buffer", "usize", "buffer", "pointer"], result: "i32" },
  // int prctl(int option, unsigned long arg2, unsigned long arg3, unsigned long arg4, ...)
  prctl: { parameters: ["i32", "usize", "usize", "usize", "usize"], result: "i32" },
  // int sched_setscheduler(pid_t pid, int policy, const struct sched_param *param)
  sched_setscheduler: { parameters: ["i32", "i32", "buffer"], result: "i32" },
});

const F_SETPIPE_SZ = 1031;
const SPLICE_F = { MOVE: 1, NONBLOCK: 2 } as const;
const SHUT_WR = 1;
const PR_SET_TIMERSLACK = 29;
const SCHED_FIFO = 1;
/** What any user may ask for. */
const PIPE_SIZE = 1 << 20;
const POLLFD_SIZE = 8;

/** Events of poll(2). */
export const POLL = { IN: 1, OUT: 4 } as const;

/** A pipe, which takes pages from a socket and gives them to another one instead of copying them. */
export class Pipe implements Disposable {
  readonly #from: number;
  readonly #to: number;
  #held = 0;

  /** Holds 256 pieces of some KiB, where this user has not too many pipes yet. */
  constructor() {
    const pair = new Int32Array(32);
    checked(symbols().pipe2(pair, O.NONBLOCK | O.CLOEXEC), "pipe2");
    [this.#from, this.#to] = [pair[0]!, pair[1]!];
    symbols().fcntl(this.#to, F_SETPIPE_SZ, PIPE_SIZE);
  }

  /** Bytes in it. */
  get held(): number {
    return this.#held;
  }

  /**
   * Takes up to so many bytes out of a socket: how many, 0 at its end, or -1 with errno set (EAGAIN:
   * there are none, or the pipe is full).
   */
  fill(socket: number, most: number): number {
    const flags = SPLICE_F.MOVE | SPLICE_F.NONBLOCK;
    const count = symbols().splice(socket, null, this.#to, null, BigInt(most), flags);
    this.#held += Math.max(count, 0);
    return count;
  }

  /** Puts up to so many bytes into a socket: how many, or -1 with errno set. */
  drain(socket: number, most: number): number {
    const flags = SPLICE_F.MOVE | SPLICE_F.NONBLOCK;
    const count = symbols().splice(this.#from, null, socket, null, BigInt(most), flags);
    this.#held -= Math.max(count, 0);
    return count;
  }

  /** Closes both ends. */
  [Symbol.dispose](): void {
    close(this.#from);
    close(this.#to);
  }
}

/** Descriptors to wait for, up to a thousand, anew each time. */
export class PollSet {
  readonly #entries = new DataView(new ArrayBuffer(1024 * POLLFD_SIZE));
  readonly #timeout = new BigInt64Array(16);
  #count = 0;

  /** Waits for nothing any more. */
  clear(): void {
    this.#count = 0;
  }

  /** Waits for one of {@linkcode POLL} too; answers as what {@linkcode PollSet.has} knows it. */
  add(fd: number, event: number): number {
    const at = this.#count * POLLFD_SIZE;
    this.#entries.setInt32(at, fd, true);
    this.#entries.setUint32(at + 4, event, true);
    return this.#count++;
  }

  /** Whether that came, or an error did, as of the latest wait. */
  has(entry: number): boolean {
    return this.#entries.getUint16(entry * POLLFD_SIZE + 6, true) !== 0;
  }

  /** Waits so many milliseconds at most, or for ever (`Infinity`); answers how many have something. */
  wait(milliseconds: number): number {
    const isEndless = milliseconds === Infinity;
    const seconds = isEndless ? 0 : Math.floor(milliseconds / 1000);
    this.#timeout[0] = BigInt(seconds);
    this.#timeout[1] = isEndless ? 0n : BigInt(Math.floor((milliseconds - seconds * 1000) * 1e6));
    const timeout = isEndless ? null : this.#timeout;
    const result = symbols().ppoll(this.#entries, BigInt(this.#count), timeout, null);
    if (result < 0 && errno() !== ERRNO.EINTR) throwErrno("ppoll");
    return Math.max(result, 0);
  }
}

/** Whoever reads the other end gets the end, and may write on. Gone peers are no error. */
export function endWriting(fd: number): void {
  if (symbols().shutdown(fd, SHUT_WR) === 0 || errno() === ERRNO.ENOTCONN) return;
  throwErrno("shutdown", `descriptor ${fd}`);
}

/** Has this thread sleep no longer than it asked to, and run before all others once it wakes. */
export function goFirst(): void {
  checked(symbols().prctl(PR_SET_TIMERSLACK, 1n, 0n, 0n, 0n), "prctl PR_SET_TIMERSLACK");
  // Without the right to it, it is less exact beside programs that need all cores.
  symbols().sched_setscheduler(0, SCHED_FIFO, new Int32Array(32).fill(1));
}
