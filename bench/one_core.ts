/**
 * Keeps threads on one core, where it is no matter how long a sleeping core takes to wake up: on a
 * virtual machine that may be several times as long as what is measured.
 *
 * @module
 */
import { checked } from "../ffi/errno.ts";
import { libc } from "../ffi/libc.ts";

const symbols = libc({
  // int sched_getaffinity(pid_t pid, size_t cpusetsize, cpu_set_t *mask)
  sched_getaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
  // int sched_setaffinity(pid_t pid, size_t cpusetsize, const cpu_set_t *mask)
  sched_setaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
});

const MASK_BYTES = 128;

/**
 * Keeps this thread on the last core that it may use, until it is disposed of, and for good all
 * Workers that it starts until then.
 */
export function stayOnOneCore(): Disposable {
  const allowed = new Uint8Array(MASK_BYTES), one = new Uint8Array(MASK_BYTES);
  const size = BigInt(MASK_BYTES);
  checked(symbols().sched_getaffinity(0, size, allowed), "sched_getaffinity");
  const last = allowed.findLastIndex((bits) => bits !== 0);
  one[last] = 1 << (31 - Math.clz32(allowed[last]!));
  const set = (mask: Uint8Array<ArrayBuffer>) =>
    checked(symbols().sched_setaffinity(0, size, mask), "sched_setaffinity");
  set(one);
  return { [Symbol.dispose]: () => void set(allowed) };
}
