/**
 * A backend that answers for its first and last 64 KiB, where a partition scan looks, and never for
 * what is between; at {@linkcode FATAL} its Worker fails.
 *
 * @module
 */
import type { Backend } from "../../../lib/backend/backend.ts";

/** The offset of a block of 64 KiB whose reading ends the Worker. */
export const FATAL = 8 << 20;

const SIZE = 16 << 20;
const EDGE = 64 << 10;

/** Makes the backend. */
export default function open(): Backend {
  const answer = (offset: number, length: number): void | Promise<void> => {
    if (offset + length <= EDGE || offset >= SIZE - EDGE) return;
    if (offset === FATAL) setTimeout(() => Promise.reject(new Error("as asked")));
    return new Promise(() => {});
  };
  return {
    size: SIZE,
    blockSize: 1,
    durable: false,
    readOnly: false,
    readAt: (buffer, offset) => answer(offset, buffer.length),
    writeAt: (buffer, offset) => answer(offset, buffer.length),
    flush: () => {},
    close: () => {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
