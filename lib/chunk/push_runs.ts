/**
 * Finds what is to be pushed: dirty chunks, cut into requests, and long runs of them that the cache
 * holds as zeroes, which need not be read.
 *
 * @module
 */
import { extentsOf } from "../backend/backend.ts";
import type { CachedRegion } from "./cached_region.ts";

/** Dirty chunks `[from, to)`. */
export interface PushRun {
  /** The first one. */
  readonly from: number;
  /** The one behind the last. */
  readonly to: number;
  /** The cache held all of them as zeroes when it was asked; else they are a request's worth. */
  readonly zero: boolean;
}

/** Bytes that the cache is asked about at a time; few enough for 32-bit lengths on a wire. */
const WINDOW_BYTES = 1 << 30;

/**
 * The runs of chunks that are dirty when their turn comes, from chunk `start` on to the end, and
 * then from the beginning.
 */
export async function* dirtyRuns(region: CachedRegion, start: number): AsyncGenerator<PushRun> {
  const { dirty, count } = region.states;
  const window = Math.max(Math.floor(WINDOW_BYTES / region.chunkSize), 1);
  for (const [begin, end] of [[start, count], [0, start]] as const) {
    for (let from = dirty.next(begin, end); from < end;) {
      const to = dirty.runEnd(from, Math.min(from + window, end));
      yield* runsOf(region, from, to);
      from = dirty.next(to, end);
    }
  }
}

async function* runsOf(region: CachedRegion, from: number, to: number): AsyncGenerator<PushRun> {
  const { local, requestChunks } = region;
  if (to - from <= requestChunks) return yield { from, to, zero: false };
  let done = from;
  const offset = region.offsetOf(from);
  for (const extent of await extentsOf(local, offset, region.offsetOf(to) - offset)) {
    const first = region.chunkBehind(extent.offset);
    const end = extent.offset + extent.length;
    const behind = end === region.size ? to : region.chunkOf(end);
    if (!extent.zero || behind - first <= requestChunks) continue;
    yield* cut(done, first, requestChunks);
    yield { from: first, to: behind, zero: true };
    done = behind;
  }
  yield* cut(done, to, requestChunks);
}

function* cut(from: number, to: number, most: number): Generator<PushRun> {
  for (let at = from; at < to; at += most) {
    yield { from: at, to: Math.min(at + most, to), zero: false };
  }
}
