/**
 * Looks for data and holes in a region, for lseek(2).
 *
 * @module
 */
import { type Backend, extentsOf } from "../backend/backend.ts";

/** Bytes of the first look; each further one is four times as long. */
const WINDOW = 64 << 20;

/**
 * Where the first hole at or after `offset` begins (the end of the region is one), or the first data;
 * -1 where there is no more data. A hole is what the store does not hold and reads as zeroes.
 */
export async function findRun(backend: Backend, offset: number, hole: boolean): Promise<number> {
  const { size } = backend;
  let window = WINDOW;
  for (let at = offset; at < size; at += window, window *= 4) {
    const extents = await extentsOf(backend, at, Math.min(window, size - at));
    const found = extents.find((extent) => (extent.hole && extent.zero) === hole);
    if (found !== undefined) return found.offset;
  }
  return hole ? size : -1;
}
