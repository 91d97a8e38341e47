/**
 * sched.h: on which cores threads run, and may run.
 *
 * @module
 */
import { checked } from "./errno.ts";
import { readKernelText } from "./file.ts";
import { libc } from "./libc.ts";

const symbols = libc({
  // int sched_getcpu(void)
  sched_getcpu: { parameters: [], result: "i32" },
  // int sched_getaffinity(pid_t pid, size_t cpusetsize, cpu_set_t *mask)
  sched_getaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
  // int sched_setaffinity(pid_t pid, size_t cpusetsize, const cpu_set_t *mask)
  sched_setaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
});

/** `cpu_set_t` of glibc has as many. */
const MASK_BYTES = 128;
/** Where proc(5) tells on which core a thread ran last, counted behind the name in parentheses. */
const PROCESSOR_FIELD = 36;

/** The cores on which this thread may run, a bit each. Throws `SystemError`. */
export function allowedCores(): Uint8Array<ArrayBuffer> {
  const mask = new Uint8Array(MASK_BYTES);
  checked(symbols().sched_getaffinity(0, BigInt(MASK_BYTES), mask), "sched_getaffinity");
  return mask;
}

/** Lets this thread run on these cores alone. Throws `SystemError` (EINVAL: it may on none). */
export function allowCores(mask: Uint8Array<ArrayBuffer>): void {
  checked(symbols().sched_setaffinity(0, BigInt(MASK_BYTES), mask), "sched_setaffinity");
}

/** The core on which this thread runs now. */
export function currentCore(): number {
  return symbols().sched_getcpu();
}

/** How many cores a set has. */
export function countCores(mask: Uint8Array<ArrayBuffer>): number {
  let count = 0;
  for (const byte of mask) for (let bits = byte; bits !== 0; bits &= bits - 1) count++;
  return count;
}

/** A set of one core. */
export function oneCore(core: number): Uint8Array<ArrayBuffer> {
  const mask = new Uint8Array(MASK_BYTES);
  mask[core >> 3] = 1 << (core & 7);
  return mask;
}

/**
 * Moves this thread to the core on which another thread of this process ran last, if that is one of
 * `allowed`; with `stay` it may run nowhere else from then on, otherwise on all of those. Answers
 * whether it was there, was moved, or stays away. Throws where that thread is gone.
 */
export function moveToCoreOf(
  thread: number,
  allowed: Uint8Array<ArrayBuffer>,
  { stay = false } = {},
): "there" | "moved" | "away" {
  const stat = readKernelText(`/proc/self/task/${thread}/stat`);
  const core = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[PROCESSOR_FIELD]);
  if ((allowed[core >> 3]! & 1 << (core & 7)) === 0) return "away";
  const wasElsewhere = core !== currentCore();
  if (wasElsewhere || stay) allowCores(oneCore(core));
  if (wasElsewhere && !stay) allowCores(allowed);
  return wasElsewhere ? "moved" : "there";
}
