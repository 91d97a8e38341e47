/**
 * Copies a region from one backend to another, holes as holes, several chunks at a time.
 *
 * @module
 */
import { type Backend, extentsOf, writeZeroes } from "../backend/backend.ts";
import { UsageError } from "../backend/errors.ts";
import { isZero } from "../backend/zeroes.ts";
import { compareBackends } from "./compare.ts";
import { commonAlignment, type Piece, piecesOf, workThrough } from "./copy_pieces.ts";

/** How far a copy is. */
export interface CopyProgress {
  /** What is being done. */
  phase: "copy" | "verify";
  /** Bytes of the region that are done with in this phase. */
  done: number;
  /** Bytes of the region. */
  total: number;
}

/** How {@linkcode copyBackend} copies. */
export interface CopyOptions {
  /** Chunks in flight; 8 unless told. */
  concurrency?: number;
  /** Bytes of a chunk; 1 MiB unless told. */
  chunkSize?: number;
  /** Read both back afterwards and compare. */
  verify?: boolean;
  /** Called after each chunk. */
  onProgress?: (progress: CopyProgress) => void;
  /** Stops the copy, which then throws the signal's reason. */
  signal?: AbortSignal;
}

/** What a copy did. */
export interface CopyResult {
  /** Bytes of the region. */
  size: number;
  /** Bytes that were written as data. */
  written: number;
  /** Bytes that were made zero, or were zero in the target already. */
  zeroed: number;
  /** Whether source and target were read back and found equal. */
  verified: boolean;
}

/**
 * Copies all of `source` to the beginning of `target`, and flushes that. What the source knows to
 * be zero is not read, and what reads as zeroes is not written as data. Neither may be written
 * to by others meanwhile.
 *
 * @throws {UsageError} The target is read-only or smaller than the source.
 * @throws {IntegrityError} They differ after the copy (only with `verify`).
 */
export async function copyBackend(
  source: Backend,
  target: Backend,
  options: CopyOptions = {},
): Promise<CopyResult> {
  checkTarget(source, target);
  const { concurrency = 8, verify = false, onProgress, signal } = options;
  const { size } = source;
  const alignment = commonAlignment(source.blockSize, target.blockSize);
  const chunkSize = Math.ceil((options.chunkSize ?? 1 << 20) / alignment) * alignment;
  const result: CopyResult = { size, written: 0, zeroed: 0, verified: false };
  let done = 0;
  const copyPiece = async (piece: Piece, buffer: Uint8Array<ArrayBuffer>) => {
    const data = piece.zero ? undefined : buffer.subarray(0, piece.length);
    if (data !== undefined) await source.readAt(data, piece.offset);
    if (data !== undefined && !isZero(data)) {
      await target.writeAt(data, piece.offset);
      result.written += piece.length;
    } else {
      await makeZero(target, piece);
      result.zeroed += piece.length;
    }
    done += piece.length;
    onProgress?.({ phase: "copy", done, total: size });
  };
  const pieces = piecesOf(source, size, alignment, chunkSize);
  await workThrough(pieces, { chunkSize, concurrency, signal }, copyPiece);
  await target.flush();
  if (verify) {
    await compareBackends(source, target, {
      concurrency,
      chunkSize,
      signal,
      onProgress: (done) => onProgress?.({ phase: "verify", done, total: size }),
    });
    result.verified = true;
  }
  return result;
}

function checkTarget(source: Backend, target: Backend): void {
  if (target.readOnly) throw new UsageError("Cannot copy to a region that is read-only");
  if (target.size >= source.size) return;
  throw new UsageError(
    `Cannot copy ${source.size} bytes to a region of ${target.size} bytes`,
    { hint: "give the target at least the size of the source" },
  );
}

/** Zeroes a range, unless the target holds nothing there as it is. */
async function makeZero(target: Backend, { offset, length }: Piece): Promise<void> {
  const extents = await extentsOf(target, offset, length);
  if (extents.every(({ zero }) => zero)) return;
  await writeZeroes(target, offset, length);
}
