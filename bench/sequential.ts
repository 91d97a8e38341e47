/**
 * Reading and writing a mounted file from its beginning, piece by piece, as plain programs do.
 *
 * @module
 */

/** Bytes a call. */
const PIECE = 1 << 20;
const PAGE = 4096;

/** How much of a file is read or written. */
export interface Transfer {
  /** Bytes of it. */
  size: number;
  /** Milliseconds after which it ends early: what was done by then counts. */
  limit: number;
}

/** Reads a file; answers MB/s. */
export function readInOrder(file: Deno.FsFile, transfer: Transfer): number {
  const piece = new Uint8Array(PIECE);
  return moveInOrder(file, transfer, () => file.readSync(piece));
}

/** Writes a file over with bytes that are no zeroes; answers MB/s. */
export function writeInOrder(file: Deno.FsFile, transfer: Transfer): number {
  const piece = new Uint8Array(PIECE);
  for (let at = 0; at < PIECE; at += 65_536) {
    crypto.getRandomValues(piece.subarray(at, at + 65_536));
  }
  return moveInOrder(file, transfer, () => file.writeSync(piece));
}

/** Reads 4 KiB at an offset; answers the milliseconds that it took. */
export function readPage(file: Deno.FsFile, offset: number): number {
  const page = new Uint8Array(PAGE);
  const start = performance.now();
  file.seekSync(offset, Deno.SeekMode.Start);
  file.readSync(page);
  return performance.now() - start;
}

/** Moves a piece after the other; answers MB/s. */
function moveInOrder(
  file: Deno.FsFile,
  { size, limit }: Transfer,
  move: () => number | null,
): number {
  file.seekSync(0, Deno.SeekMode.Start);
  const start = performance.now();
  let done = 0, lasted = 0;
  while (done < size && lasted < limit) {
    const moved = move();
    if (moved === null || moved === 0) throw new Error(`The file ends after ${done} bytes`);
    done += moved;
    lasted = performance.now() - start;
  }
  return done / 1000 / lasted;
}
