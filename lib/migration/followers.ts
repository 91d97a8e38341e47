/**
 * Which chunks of a region each of its followers has yet to be told of: what was written since it
 * was told last. Pure.
 *
 * Telling is idempotent: what was told is kept until the follower says that it has it, and told again
 * until then. So a lost answer loses nothing, and several followers do not take from each other.
 *
 * @module
 */
import { Bitmap } from "../backend/bitmap.ts";
import { ChangedError, TelemapError } from "../backend/errors.ts";
import { RangeList } from "../backend/range_list.ts";

/** What a follower is told at once. */
export interface DirtySet {
  /** Counts the sets that a follower was told. */
  readonly generation: number;
  /** Whole chunks, in bytes. */
  readonly ranges: RangeList;
  /** Whether there is more than was told. */
  readonly more: boolean;
}

/** How chunks lie in the region. */
export interface FollowedRegion {
  /** Bytes of the region. */
  readonly size: number;
  /** Bytes of a chunk. */
  readonly chunkSize: number;
}

/** Followers at a time; each costs a bit a chunk. */
export const FOLLOWERS_MOST = 8;
/** Ranges that are told at once. */
export const RANGES_MOST = 4096;

interface Follower {
  readonly pending: Bitmap;
  /** What was told last, until the next question shows that it arrived. */
  told: DirtySet;
  /** When it asked last, as the caller counts. */
  seenAt: number;
}

/** See the module. */
export class Followers {
  readonly #region: FollowedRegion;
  readonly #chunks: number;
  readonly #followers = new Map<string, Follower>();

  /** Nobody follows yet. */
  constructor(region: FollowedRegion) {
    this.#region = region;
    this.#chunks = Math.ceil(region.size / region.chunkSize);
  }

  /** How many there are. */
  get count(): number {
    return this.#followers.size;
  }

  /** Whether one of that name follows. */
  has(name: string): boolean {
    return this.#followers.has(name);
  }

  /**
   * One follows from now on, and has been told nothing; one that did before begins anew. Where there
   * are too many, the one that has been silent for longest is let go of, if that is over `silentMs`.
   *
   * @throws {TelemapError} EBUSY: there are too many.
   */
  add(name: string, now: number, silentMs: number): void {
    if (!this.#followers.has(name) && this.count >= FOLLOWERS_MOST) this.#makeRoom(now, silentMs);
    this.#followers.set(name, {
      pending: new Bitmap(this.#chunks),
      told: { generation: 0, ranges: new RangeList(), more: false },
      seenAt: now,
    });
  }

  /** One follows no more. */
  delete(name: string): void {
    this.#followers.delete(name);
  }

  /** Ranges were written: whoever follows has yet to be told. */
  written(ranges: RangeList): void {
    const { chunkSize } = this.#region;
    for (const { pending } of this.#followers.values()) {
      for (let index = 0; index < ranges.count; index++) {
        const from = Math.floor(ranges.start(index) / chunkSize);
        pending.addRange(from, Math.ceil(ranges.end(index) / chunkSize));
      }
    }
  }

  /**
   * What a follower has to be told that has everything up to `generation`: the next set, or the last
   * one again where that did not arrive.
   *
   * @throws {ChangedError} it does not follow, or is of another count.
   */
  tell(name: string, generation: number, now: number): DirtySet {
    const follower = this.#followers.get(name);
    const behind = follower === undefined ? NaN : follower.told.generation - generation;
    if (follower === undefined || (behind !== 0 && behind !== 1)) {
      throw new ChangedError("Cannot tell what was written since, as that was not followed", {
        hint: "begin to follow anew, and compare everything",
      });
    }
    follower.seenAt = now;
    if (behind === 0) follower.told = this.#take(follower.pending, generation + 1);
    return follower.told;
  }

  #take(pending: Bitmap, generation: number): DirtySet {
    const { size, chunkSize } = this.#region;
    const ranges = new RangeList();
    let at = pending.next(0, this.#chunks);
    while (at < this.#chunks && ranges.count < RANGES_MOST) {
      const end = pending.runEnd(at, this.#chunks);
      pending.deleteRange(at, end);
      ranges.add(at * chunkSize, Math.min(end * chunkSize, size));
      at = pending.next(end, this.#chunks);
    }
    return { generation, ranges, more: at < this.#chunks };
  }

  #makeRoom(now: number, silentMs: number): void {
    let oldest: [string, Follower] | undefined;
    for (const entry of this.#followers) {
      if (oldest === undefined || entry[1].seenAt < oldest[1].seenAt) oldest = entry;
    }
    const [name, { seenAt }] = oldest!;
    if (now - seenAt < silentMs) {
      throw new TelemapError("EBUSY", `Cannot be followed by more than ${FOLLOWERS_MOST}`, {
        hint: "end one of those who follow",
      });
    }
    this.#followers.delete(name);
  }
}
