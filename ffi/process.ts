/**
 * unistd.h, signal.h, sched.h and sys/prctl.h as far as processes deal with each other: who am I,
 * who is alive, who may go first, and that a server of a block device must not wait for that device.
 *
 * @module
 */
import { ERRNO, errno } from "./errno.ts";
import { close, O, open, pread, readLink } from "./file.ts";
import { libc } from "./libc.ts";

const PR_SET_IO_FLUSHER = 57;
/** A task's flag (linux/sched.h): it was killed and is on its way out, which may take for ever. */
const PF_EXITING = 0x4;

const symbols = libc({
  // pid_t getpid(void)
  getpid: { parameters: [], result: "i32" },
  // pid_t gettid(void)
  gettid: { parameters: [], result: "i32" },
  // uid_t geteuid(void)
  geteuid: { parameters: [], result: "u32" },
  // int sched_yield(void)
  sched_yield: { parameters: [], result: "i32" },
  // int kill(pid_t pid, int sig)
  kill: { parameters: ["i32", "i32"], result: "i32" },
  // int prctl(int option, unsigned long arg2, unsigned long arg3, unsigned long arg4, ...)
  prctl: { parameters: ["i32", "usize", "usize", "usize", "usize"], result: "i32" },
});

/** The id of this process. */
export function processId(): number {
  return symbols().getpid();
}

/** The id of the thread that this isolate runs on. */
export function threadId(): number {
  return symbols().gettid();
}

/** Lets other threads that wait for the core of this one go first; returns at once where none does. */
export function yieldCore(): void {
  symbols().sched_yield();
}

/** The effective user id; 0 is root. */
export function effectiveUser(): number {
  return symbols().geteuid();
}

/** Whether a process with this id exists, zombies included, whoever owns it. */
export function processExists(pid: number): boolean {
  return symbols().kill(pid, 0) === 0 || errno() === ERRNO.EPERM;
}

/**
 * When a process began, in clock ticks after boot, which tells it from a later one with the same id;
 * undefined where there is none, or it is ending or waits to be collected (proc(5), /proc/pid/stat).
 */
export function processStart(pid: number): number | undefined {
  const path = `/proc/${pid}/stat`;
  if (!processExists(pid)) return undefined;
  let fd: number;
  try {
    fd = open(path, O.RDONLY);
  } catch {
    return undefined;
  }
  const bytes = new Uint8Array(4096);
  const length = pread(fd, bytes, 0);
  close(fd);
  return length <= 0 ? undefined : startOf(new TextDecoder().decode(bytes.subarray(0, length)));
}

/** The start time in a line of /proc/pid/stat; undefined for a process that ended or is ending. */
export function startOf(stat: string): number | undefined {
  // The second field, the name in parentheses, may hold spaces and parentheses itself.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const state = fields[0], flags = Number(fields[6]), start = Number(fields[19]);
  const ended = state === "Z" || state === "X" || (flags & PF_EXITING) !== 0;
  return ended || !Number.isSafeInteger(start) ? undefined : start;
}

/** The pid namespace of this process, e.g. `pid:[4026531836]`: process ids mean the same within one. */
export function pidNamespace(): string {
  return readLink("/proc/self/ns/pid");
}

/**
 * Tells the kernel that this thread, and those it makes from now on, serve a block device: their
 * allocations never wait for dirty pages to be written back, which could be that device's own.
 * Answers false where it is not permitted (CAP_SYS_RESOURCE) or the kernel is older than 5.6.
 */
export function becomeIoFlusher(): boolean {
  return symbols().prctl(PR_SET_IO_FLUSHER, 1n, 0n, 0n, 0n) === 0;
}
