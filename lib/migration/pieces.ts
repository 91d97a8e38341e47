/**
 * The content of ranges in pieces, each of which fits a message: the last set of a region is asked for
 * piece by piece before it is known what that is.
 *
 * @module
 */
import type { ByteRange, RangeList } from "../backend/range_list.ts";
import { MESSAGE_LIMIT } from "./messages.ts";

/** In how many pieces the content of some ranges is. */
export function countPieces(ranges: RangeList): number {
  let count = 0;
  for (let range = 0; range < ranges.count; range++) {
    count += Math.ceil((ranges.end(range) - ranges.start(range)) / MESSAGE_LIMIT.PIECE);
  }
  return count;
}

/** The ranges that are not in the first so many pieces. */
export function rangesBehind(ranges: RangeList, pieces: number): ByteRange[] {
  const rest: ByteRange[] = [];
  for (let range = 0, left = pieces; range < ranges.count; range++) {
    const start = ranges.start(range), end = ranges.end(range);
    const from = Math.min(start + left * MESSAGE_LIMIT.PIECE, end);
    left = Math.max(left - Math.ceil((end - start) / MESSAGE_LIMIT.PIECE), 0);
    if (from < end) rest.push({ offset: from, length: end - from });
  }
  return rest;
}

/** Where piece `index` of some ranges lies: pieces lie in one range each, and are as long as may be. */
export function pieceOf(
  ranges: RangeList,
  index: number,
): { offset: number; length: number } | undefined {
  for (let range = 0, left = index; range < ranges.count; range++) {
    const start = ranges.start(range), end = ranges.end(range);
    const pieces = Math.ceil((end - start) / MESSAGE_LIMIT.PIECE);
    if (left < pieces) {
      const offset = start + left * MESSAGE_LIMIT.PIECE;
      return { offset, length: Math.min(MESSAGE_LIMIT.PIECE, end - offset) };
    }
    left -= pieces;
  }
}
