/**
 * The content of ranges, one after the other, in pieces each of which fits a message: the last set of
 * a region is asked for piece by piece before it is known what that is.
 *
 * @module
 */
import type { ByteRange, RangeList } from "../backend/range_list.ts";
import { MESSAGE_LIMIT } from "./messages.ts";

/** In how many pieces the content of some ranges is. */
export function countPieces(ranges: RangeList): number {
  return Math.ceil(ranges.byteLength / MESSAGE_LIMIT.PIECE);
}

/** What piece `index` of some ranges is put together of; nothing where there are not as many. */
export function pieceOf(ranges: RangeList, index: number): ByteRange[] {
  return contentOf(ranges, index * MESSAGE_LIMIT.PIECE, (index + 1) * MESSAGE_LIMIT.PIECE);
}

/** The ranges that are not in the first so many pieces. */
export function rangesBehind(ranges: RangeList, pieces: number): ByteRange[] {
  return contentOf(ranges, pieces * MESSAGE_LIMIT.PIECE, Infinity);
}

/** Where bytes `[from, to)` of the content of some ranges lie. */
function contentOf(ranges: RangeList, from: number, to: number): ByteRange[] {
  const parts: ByteRange[] = [];
  for (let range = 0, before = 0; range < ranges.count && before < to; range++) {
    const start = ranges.start(range), length = ranges.end(range) - start;
    const first = Math.max(from - before, 0), end = Math.min(to - before, length);
    if (first < end) parts.push({ offset: start + first, length: end - first });
    before += length;
  }
  return parts;
}
