/**
 * Cuts a region into the pieces in which it is copied or compared, and works on several at a time.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import { type Backend, extentsOf } from "../backend/backend.ts";
import { settleAll } from "../backend/settle.ts";

/** A range of a region; a `zero` one is known to read as zeroes and may be long. */
export interface Piece {
  /** First byte. */
  offset: number;
  /** Bytes, over 0. */
  length: number;
  /** Known to read as zeroes. */
  zero: boolean;
}

/** How pieces are cut and worked on. */
export interface PieceOptions {
  /** Bytes of a piece of data; made a multiple of the alignment. */
  chunkSize: number;
  /** Pieces in the works at a time. */
  concurrency: number;
  /** Stops the work: its reason is thrown. */
  signal?: AbortSignal | undefined;
}

/** A run of zeroes below this many bytes is treated as data, to save requests. */
const SHORTEST_ZERO_RUN = 65536;

/** Chunks whose extents are asked for at a time; few enough for 32-bit lengths on the wire. */
const WINDOW_CHUNKS = 256;

/** A longer run of zeroes than this many bytes is cut, so that progress shows. */
const LONGEST_ZERO_RUN = 128 * 1024 * 1024;

/** How long work that answers at once may keep the event loop from turning, in ms. */
const TURN_MS = 20;

/** The first `size` bytes of a backend in pieces that start and end at multiples of `alignment`. */
export async function* piecesOf(
  backend: Backend,
  size: number,
  alignment: number,
  chunkSize: number,
): AsyncGenerator<Piece> {
  const window = chunkSize * WINDOW_CHUNKS;
  for (let start = 0; start < size; start += window) {
    const end = Math.min(start + window, size);
    let done = start;
    for (const { offset, length, zero } of await extentsOf(backend, start, end - start)) {
      const from = Math.ceil(offset / alignment) * alignment;
      const runEnd = offset + length;
      const to = runEnd === size ? size : runEnd - runEnd % alignment;
      if (!zero || to - from < SHORTEST_ZERO_RUN) continue;
      yield* cut(done, from, chunkSize, false);
      yield* cut(from, to, LONGEST_ZERO_RUN, true);
      done = to;
    }
    yield* cut(done, end, chunkSize, false);
  }
}

/**
 * Calls `work` for each piece, on as many at a time as told, each with a buffer of its own of
 * `chunkSize` bytes. Answers once none is in the works any more; throws the first error.
 */
export async function workThrough(
  pieces: AsyncGenerator<Piece>,
  options: PieceOptions,
  work: (piece: Piece, buffer: Uint8Array<ArrayBuffer>) => Promise<void>,
): Promise<void> {
  const { chunkSize, concurrency, signal } = options;
  let failed = false;
  let turned = performance.now();
  const takePieces = async () => {
    const buffer = new Uint8Array(chunkSize);
    try {
      for await (const piece of shared(pieces)) {
        signal?.throwIfAborted();
        if (failed) return;
        await work(piece, buffer);
        if (performance.now() - turned < TURN_MS) continue;
        await new Promise((resolve) => setImmediate(resolve));
        turned = performance.now();
      }
    } catch (error) {
      failed = true;
      throw error;
    }
  };
  await settleAll(Array.from({ length: concurrency }, takePieces));
}

/** The rest of a generator, for one of several who take from it: stopping early does not end it. */
function shared<T>(generator: AsyncGenerator<T>): AsyncIterable<T> {
  return { [Symbol.asyncIterator]: () => ({ next: () => generator.next() }) };
}

function* cut(from: number, to: number, step: number, zero: boolean): Generator<Piece> {
  for (let offset = from; offset < to; offset += step) {
    yield { offset, length: Math.min(step, to - offset), zero };
  }
}

/** The smallest offset step that suits both alignments. */
export function commonAlignment(a: number, b: number): number {
  let [divisor, rest] = [a, b];
  while (rest !== 0) [divisor, rest] = [rest, divisor % rest];
  return a / divisor * b;
}
