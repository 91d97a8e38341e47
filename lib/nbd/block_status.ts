/**
 * The payload of a BLOCK_STATUS chunk for `base:allocation`, out of a backend's extents.
 *
 * @module
 */
import type { Extent } from "../backend/backend.ts";
import { ALLOCATION } from "./constants.ts";

/** Extents that one chunk carries at most; the client asks on from there. */
const EXTENTS = 1 << 16;

/**
 * u32 context id, then u32 length and u32 flags an extent, big-endian; adjoining extents with equal
 * flags are one. `single` (REQ_ONE) keeps the first alone.
 */
export function blockStatus(
  contextId: number,
  extents: Extent[],
  single: boolean,
): Uint8Array<ArrayBuffer> {
  const lengths: number[] = [], flags: number[] = [];
  for (const extent of extents) {
    const flag = (extent.hole ? ALLOCATION.HOLE : 0) | (extent.zero ? ALLOCATION.ZERO : 0);
    const last = flags.length - 1;
    if (flags[last] === flag) {
      lengths[last] = lengths[last]! + extent.length;
    } else {
      if (flags.length === (single ? 1 : EXTENTS)) break;
      lengths.push(extent.length);
      flags.push(flag);
    }
  }
  const payload = new Uint8Array(4 + 8 * lengths.length);
  const view = new DataView(payload.buffer);
  view.setUint32(0, contextId);
  lengths.forEach((length, index) => {
    view.setUint32(4 + 8 * index, length);
    view.setUint32(8 + 8 * index, flags[index]!);
  });
  return payload;
}
