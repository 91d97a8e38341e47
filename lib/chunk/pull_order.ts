/**
 * Which absent chunks to pull next: what somebody asked for near, then the ranges of lists, then
 * everything from one place on and around. Nothing here grows with the region but lists do.
 *
 * @module
 */
import type { ByteRange } from "../backend/range_list.ts";
import { UsageError } from "../backend/errors.ts";
import type { ChunkStates } from "./chunk_states.ts";

/** Chunks `[from, to)`. */
export interface ChunkRun {
  /** The first one. */
  from: number;
  /** The one behind the last. */
  to: number;
}

/** What comes first, in order: first and behind-last chunk of each range in turn. */
export interface PullLists {
  /** What somebody is expected to read soon. */
  expected?: Float64Array | undefined;
  /** What is wanted behind that. */
  wanted?: Float64Array | undefined;
}

/** Ranges that are gone through once. */
interface RunList {
  /** What was answered is taken off. */
  readonly runs: Float64Array;
  /** Where the next one is. */
  at: number;
}

function takeOff(list: Float64Array = new Float64Array(0)): RunList {
  return { runs: list.slice(), at: 0 };
}

function isOver({ runs, at }: RunList): boolean {
  return at >= runs.length;
}

/** How chunks are laid out in a region. */
export interface ChunkLayout {
  /** Chunks of the region. */
  readonly count: number;
  /** Bytes of a chunk. */
  readonly chunkSize: number;
}

/** After a fault outside the order, chunks behind it come first: so many requests' worth of them. */
const NEAR_REQUESTS = { LEAST: 1, MOST: 64 } as const;
/** A priority is asked for at most so often; neighbours share one in regions of more chunks. */
const PRIORITIES = 1 << 20;

/** See the module. */
export class PullOrder {
  readonly #states: ChunkStates;
  readonly #most: number;
  readonly #expected: RunList;
  readonly #wanted: RunList;
  readonly #again: ChunkRun[] = [];
  #near = 0;
  #nearEnd = 0;
  #nearRequests: number = NEAR_REQUESTS.LEAST;
  #at = 0;
  /** Chunks that were not looked at since the beginning of this time round. */
  #left: number;

  /** Orders the chunks of `states` by lists; at most `most` chunks are pulled together. */
  constructor(states: ChunkStates, most: number, { expected, wanted }: PullLists = {}) {
    this.#states = states;
    this.#most = most;
    this.#expected = takeOff(expected);
    this.#wanted = takeOff(wanted);
    this.#left = states.count;
  }

  /**
   * The next chunks to pull: all of them absent, not on their way, and not failed. `undefined`
   * where all were looked at; {@linkcode restart} looks at them again.
   */
  next(): ChunkRun | undefined {
    return this.nextExpected() ?? this.#nextOf(this.#wanted) ?? this.#nextAround();
  }

  /** The same, of what is expected to be read, near what somebody asked for, or to be pulled again. */
  nextExpected(): ChunkRun | undefined {
    return this.#nextAgain() ?? this.#nextNear() ?? this.#nextOf(this.#expected);
  }

  /** Somebody waits for chunks `[from, to)`, and has them fetched: he may want the next ones soon. */
  fault({ from, to }: ChunkRun): void {
    if (isOver(this.#expected) && isOver(this.#wanted)) {
      this.#at = to % this.#states.count;
      this.#left = this.#states.count;
      return;
    }
    const goesOn = from >= this.#near && from <= this.#nearEnd + this.#most;
    const { LEAST, MOST } = NEAR_REQUESTS;
    this.#nearRequests = goesOn ? Math.min(this.#nearRequests * 2, MOST) : LEAST;
    this.#near = to;
    this.#nearEnd = Math.min(to + this.#nearRequests * this.#most, this.#states.count);
  }

  /** Chunks that {@linkcode next} answered were not pulled after all: they are the next ones. */
  again(run: ChunkRun): void {
    this.#again.push(run);
  }

  /** Looks at all chunks again, also those that failed. */
  restart(): void {
    this.#states.forgetFailures();
    this.#left = this.#states.count;
  }

  #nextAgain(): ChunkRun | undefined {
    for (let run = this.#again.pop(); run !== undefined; run = this.#again.pop()) {
      const found = this.#find(run.from, run.to);
      if (found === undefined) continue;
      if (found.to < run.to) this.#again.push({ from: found.to, to: run.to });
      return found;
    }
  }

  #nextNear(): ChunkRun | undefined {
    const found = this.#find(this.#near, this.#nearEnd);
    this.#near = found?.to ?? this.#nearEnd;
    return found;
  }

  #nextOf(list: RunList): ChunkRun | undefined {
    for (const { runs } = list; !isOver(list); list.at += 2) {
      const found = this.#find(runs[list.at]!, runs[list.at + 1]!);
      if (found === undefined) continue;
      runs[list.at] = found.to;
      return found;
    }
  }

  #nextAround(): ChunkRun | undefined {
    const { count } = this.#states;
    while (this.#left > 0) {
      const end = Math.min(this.#at + this.#left, count);
      const found = this.#find(this.#at, end);
      const to = found?.to ?? end;
      this.#left -= to - this.#at;
      this.#at = to % count;
      if (found !== undefined) return found;
    }
  }

  /** The first chunks of `[from, to)` to pull, as many together as may be. */
  #find(from: number, to: number): ChunkRun | undefined {
    const states = this.#states;
    for (let at = from; (at = states.nextAbsent(at, to)) < to; at++) {
      if (!this.#isFree(at)) continue;
      const most = Math.min(at + this.#most, to);
      let end = at + 1;
      while (end < most && !states.local.has(end) && this.#isFree(end)) end++;
      return { from: at, to: end };
    }
  }

  /** Whether an absent chunk is neither on its way nor known to fail. */
  #isFree(chunk: number): boolean {
    return !this.#states.isPulling(chunk) && !this.#states.hasFailed(chunk);
  }
}

/** The list for a {@linkcode PullOrder} of ranges of bytes. Throws `RangeError` on one outside. */
export function listRanges(ranges: Iterable<ByteRange>, layout: ChunkLayout): Float64Array {
  const { count, chunkSize } = layout;
  const list: number[] = [];
  for (const { offset, length } of ranges) {
    const from = Math.floor(offset / chunkSize), to = Math.ceil((offset + length) / chunkSize);
    if (!(from >= 0 && length >= 0 && to <= count)) {
      throw new RangeError(
        `Cannot pull ${length} bytes at ${offset} first: the region ends before`,
      );
    }
    if (length > 0) appendRun(list, from, to);
  }
  return Float64Array.from(list);
}

/**
 * The list for a {@linkcode PullOrder} by priority: higher ones first, equal ones in the order of
 * the region. `priority` takes the offset of a chunk in bytes. Throws {@linkcode UsageError} where
 * it answers with no number.
 */
export function listPriorities(
  priority: (offset: number) => number,
  { count, chunkSize }: ChunkLayout,
): Float64Array {
  const step = Math.ceil(count / PRIORITIES);
  const runs: { from: number; priority: number }[] = [];
  for (let from = 0; from < count; from += step) {
    const found = priority(from * chunkSize);
    if (typeof found !== "number" || Number.isNaN(found)) {
      throw new UsageError(`Cannot order chunks by the priority ${found}`, {
        hint: "the function of priorities must answer with a number for each offset",
      });
    }
    if (runs.at(-1)?.priority !== found) runs.push({ from, priority: found });
  }
  const ends = runs.map((_, index) => runs[index + 1]?.from ?? count);
  const order = runs.map((_, index) => index);
  order.sort((a, b) => compare(runs[b]!.priority, runs[a]!.priority) || a - b);
  const list: number[] = [];
  for (const index of order) appendRun(list, runs[index]!.from, ends[index]!);
  return Float64Array.from(list);
}

function compare(a: number, b: number): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Adds chunks to the end of a list; they lengthen its last range where they go on from there. */
function appendRun(list: number[], from: number, to: number): void {
  if (list.at(-1) === from) list[list.length - 1] = to;
  else list.push(from, to);
}
