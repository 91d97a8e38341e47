/**
 * unistd.h: sleeping on another thread, to the microsecond where timers of the runtime have a
 * millisecond.
 *
 * @module
 */
import { libc } from "./libc.ts";

const symbols = libc({
  // int usleep(useconds_t usec)
  usleep: { parameters: ["u32"], result: "i32", nonblocking: true },
});

/**
 * A function that answers after so many microseconds, and some hundred more, while the isolate goes
 * on. A sleep cannot be ended early, and keeps the process alive.
 *
 * @throws {Error} where FFI is not permitted (`--allow-ffi`).
 */
export function openSleep(): (microseconds: number) => Promise<unknown> {
  const { usleep } = symbols();
  return (microseconds) => usleep(microseconds);
}
