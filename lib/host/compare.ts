/**
 * Compares two regions byte by byte.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { type Backend, extentsOf } from "../backend/backend.ts";
import { IntegrityError } from "../backend/errors.ts";
import { commonAlignment, type Piece, piecesOf, workThrough } from "./copy_pieces.ts";

/** How {@linkcode compareBackends} compares. */
export interface CompareOptions {
  /** Chunks in flight; 8 unless told. */
  concurrency?: number;
  /** Bytes of a chunk; 1 MiB unless told. */
  chunkSize?: number;
  /** Called with the bytes that are done with, after each chunk. */
  onProgress?: (done: number) => void;
  /** Stops the comparison, which then throws the signal's reason. */
  signal?: AbortSignal | undefined;
}

/**
 * Reads both regions and throws {@linkcode IntegrityError} with the offset of a byte that differs.
 * What both stores know to be zero is not read. A longer `target` may hold anything behind.
 */
export async function compareBackends(
  source: Backend,
  target: Backend,
  options: CompareOptions = {},
): Promise<void> {
  const { concurrency = 8, onProgress, signal } = options;
  if (target.size < source.size) {
    throw new IntegrityError(`The regions differ: ${source.size} bytes and ${target.size} bytes`);
  }
  const alignment = commonAlignment(source.blockSize, target.blockSize);
  const chunkSize = Math.ceil((options.chunkSize ?? 1 << 20) / alignment) * alignment;
  let done = 0;
  const comparePiece = async (piece: Piece, buffer: Uint8Array<ArrayBuffer>) => {
    if (!piece.zero || !await isKnownZero(target, piece)) {
      await compareRange(source, target, piece, buffer);
    }
    done += piece.length;
    onProgress?.(done);
  };
  const pieces = piecesOf(source, source.size, alignment, chunkSize);
  await workThrough(pieces, { chunkSize: 2 * chunkSize, concurrency, signal }, comparePiece);
}

async function isKnownZero(backend: Backend, { offset, length }: Piece): Promise<boolean> {
  return (await extentsOf(backend, offset, length)).every(({ zero }) => zero);
}

/** Compares a range in steps of half the buffer: one half is for each side. */
async function compareRange(
  source: Backend,
  target: Backend,
  range: Piece,
  buffer: Uint8Array<ArrayBuffer>,
): Promise<void> {
  const step = buffer.length / 2;
  for (let at = 0; at < range.length; at += step) {
    const length = Math.min(step, range.length - at);
    const offset = range.offset + at;
    const here = buffer.subarray(0, length);
    const there = buffer.subarray(step, step + length);
    await Promise.all([source.readAt(here, offset), target.readAt(there, offset)]);
    if (Buffer.compare(here, there) === 0) continue;
    const first = here.findIndex((byte, i) => byte !== there[i]);
    throw new IntegrityError(`The regions differ at byte ${offset + first}`);
  }
}
