/**
 * Brings the content of chunks from a buffer to a backend: what is all zeroes as a hole, where the
 * backend has a quick way to make one.
 *
 * @module
 */
import type { Awaitable, Backend } from "../backend/backend.ts";
import { UnsupportedError } from "../backend/errors.ts";
import { settleAll } from "../backend/settle.ts";
import { isZero } from "../backend/zeroes.ts";

/**
 * Writes `content` at `offset`. Chunks of `chunkSize` bytes, counted from the beginning of the
 * buffer, that are all zeroes become holes; neighbours of a kind go in one call, and
 * all calls side by side. Writes go `aside` where the backend has a way for that; what is `placed` was
 * received there, so that only holes are to be made. Answers how many bytes of chunks were all zeroes.
 */
export async function writeChunks(
  backend: Backend,
  content: Uint8Array,
  offset: number,
  chunkSize: number,
  { aside = false, placed = false } = {},
): Promise<number> {
  const { length } = content;
  let zeroBytes = 0;
  const write = (run: Uint8Array, at: number): Awaitable<void> => {
    if (placed) return;
    return aside && backend.writeAside !== undefined
      ? backend.writeAside(run, at)
      : backend.writeAt(run, at);
  };
  const waits: Promise<void>[] = [];
  for (let at = 0; at < length;) {
    const zero = isZero(content.subarray(at, at + chunkSize));
    let end = at + chunkSize;
    while (end < length && isZero(content.subarray(end, end + chunkSize)) === zero) {
      end += chunkSize;
    }
    const run = content.subarray(at, end);
    if (zero) zeroBytes += run.length;
    try {
      const wait = zero ? writeZeroRun(backend, run, offset + at) : write(run, offset + at);
      if (wait !== undefined) waits.push(wait);
    } catch (error) {
      // Those that are under way are to be waited for first.
      waits.push(Promise.reject(error));
    }
    at = end;
  }
  await settleAll(waits);
  return zeroBytes;
}

/** Makes a hole, or writes the zeroes where the backend has no quick way to. */
function writeZeroRun(backend: Backend, zeroes: Uint8Array, offset: number): Awaitable<void> {
  if (backend.zero === undefined) return backend.writeAt(zeroes, offset);
  const orWrite = (error: unknown) => {
    if (!(error instanceof UnsupportedError)) throw error;
    return backend.writeAt(zeroes, offset);
  };
  try {
    return backend.zero(offset, zeroes.length)?.catch(orWrite);
  } catch (error) {
    return orWrite(error);
  }
}
