/**
 * A backend for tests that do as they like with its reads.
 *
 * @module
 */
import { type Backend, ReadOnlyError } from "../../mod.ts";

/** A read-only backend of `size` bytes whose reads are answered by `readAt`. */
export function readBy(size: number, readAt: Backend["readAt"]): Backend {
  return {
    size,
    blockSize: 1,
    durable: false,
    readOnly: true,
    readAt,
    writeAt() {
      throw new ReadOnlyError();
    },
    flush() {},
    close() {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
