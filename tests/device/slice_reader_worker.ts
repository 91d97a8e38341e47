/**
 * A Worker for device tests that reads memory of the process, at addresses that it is told, in an
 * order of its own, and makes garbage meanwhile. It answers with the offset of the first byte that is
 * not as the pattern says, or -1.
 *
 * @module
 */
import { MemoryView } from "../../ffi/mman.ts";
import { Pattern } from "../../mod.ts";

/** What is to be read. */
export interface ReadOrder {
  /** Where the memory lies. */
  address: number;
  /** Its bytes. */
  length: number;
  /** The seed of the pattern that it shows. */
  pattern: number;
  /** Decides on the order: a bit of it is "backwards", the rest a stride. */
  seed: number;
}

/** Bytes that are looked at, at a time. */
const PIECE = 4096;

interface WorkerScope {
  onmessage: ((event: MessageEvent<ReadOrder>) => void) | null;
  postMessage(difference: number): void;
}

const scope = self as unknown as WorkerScope;

function read({ address, length, pattern, seed }: ReadOrder): number {
  const bytes = new MemoryView(address, length).bytes;
  const expected = new Pattern(pattern);
  const pieces = Math.ceil(length / PIECE);
  let garbage: unknown[] = [];
  // A stride that has no factor in common with the number of pieces comes by each of them once.
  let stride = (seed >>> 1) % pieces + 1;
  while (greatestDivisor(stride, pieces) !== 1) stride++;
  for (let turn = 0; turn < pieces; turn++) {
    const at = (turn * stride) % pieces;
    const offset = ((seed & 1) === 0 ? at : pieces - 1 - at) * PIECE;
    const found = bytes.slice(offset, offset + PIECE);
    const difference = expected.findDifference(found, offset);
    if (difference >= 0) return offset + difference;
    garbage.push({ offset, found, text: `${offset}`.repeat(50) });
    if (garbage.length > 500) garbage = [];
  }
  return -1;
}

function greatestDivisor(one: number, other: number): number {
  return other === 0 ? one : greatestDivisor(other, one % other);
}

scope.onmessage = ({ data }) => scope.postMessage(read(data));
