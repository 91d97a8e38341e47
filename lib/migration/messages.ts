/**
 * What a leecher asks of a seeder, and what that answers: the messages of a migration, version 3,
 * which ride in CONTROL frames of the native wire. Everything is little-endian; `message_codec.ts` puts
 * them together and takes them apart.
 *
 * | at | request          | at | reply            |
 * | -- | ---------------- | -- | ---------------- |
 * | 0  | u8 version       | 0  | u8 version       |
 * | 1  | u8 type          | 1  | u8 type          |
 * | 2  | u16 reserved, 0  | 2  | u16 reserved, 0  |
 * | 4  | 16 bytes leecher | 4  | what its type has |
 * | 20 | what its type has |    |                  |
 *
 * | request   | what it has                                                                |
 * | --------- | -------------------------------------------------------------------------- |
 * | 1 track   | u32 chunk size                                                             |
 * | 2 dirty   | 16 bytes track id, u64 generation                                          |
 * | 3 suspend | 16 bytes track id, u64 generation, u64 epoch, u32 ms                       |
 * | 4 last    | u64 epoch, u32 index                                                       |
 * | 5 confirm | u64 epoch                                                                  |
 * | 6 outcome | u64 epoch                                                                  |
 * | 7 done    | u64 epoch                                                                  |
 * | 8 cancel  | u64 epoch                                                                  |
 * | 9 digests | u64 first chunk, u32 chunks                                                |
 * | 10 throttle | u64 bytes a second, u32 ms                                               |
 * | 11 root   | u64 epoch                                                                  |
 *
 * | reply     | what it has                                                                |
 * | --------- | -------------------------------------------------------------------------- |
 * | 1 tracked | 16 bytes track id, u64 epoch, u64 size, u64 generation, u32 chunk size     |
 * | 2 dirty   | u64 generation, u64 bytes written, ranges                                  |
 * | 3 offer   | u64 generation, u64 epoch, f64 ms preparing, f64 ms suspending,            |
 * |           | f64 ms flushing, ranges                                                    |
 * | 4 piece   | u64 index, content to the end: 1 MiB but for the last one                  |
 * | 5 outcome | u32 state (1 serving, 2 offered, 3 given, 4 released), u64 epoch,          |
 * |           | 16 bytes leecher                                                           |
 * | 6 digests | u64 first chunk, 16 bytes for each chunk to the end                        |
 * | 7 root    | 32 bytes                                                                   |
 *
 * Ranges are a u32 that is 1 where there are more of them, their number as u32, and for each a u64
 * offset and a u64 length, in ascending order and apart from each other. All u64 are below 2^53.
 *
 * @module
 */
import type { RangeList } from "../backend/range_list.ts";

/** What a leecher asks. `leech` is 16 random bytes of it, for as long as its migration takes. */
export type SeederRequest =
  /** Notice what is written from now on, in chunks of so many bytes. */
  | { type: "track"; leech: Uint8Array; chunkSize: number }
  /** Tell what was written since the generation that is named: all up to that were received. */
  | { type: "dirty"; leech: Uint8Array; trackId: Uint8Array; generation: number }
  /**
   * Suspend the program and offer the region under an epoch. `timeout` is how many ms that may
   * take, and after how many an offer that nobody confirms is taken back.
   */
  | {
    type: "suspend";
    leech: Uint8Array;
    trackId: Uint8Array;
    generation: number;
    epoch: number;
    timeout: number;
  }
  /**
   * Answer a piece of the last set's content once it is offered: of its ranges, one after the other,
   * in pieces of 1 MiB that count from 0.
   */
  | { type: "last"; leech: Uint8Array; epoch: number; index: number }
  /** Give what is offered, or will be: it goes with SUSPEND. */
  | { type: "confirm"; leech: Uint8Array; epoch: number }
  /** Tell what became of an epoch. */
  | { type: "outcome"; leech: Uint8Array; epoch: number }
  /** Everything is here: the region may be let go. */
  | { type: "done"; leech: Uint8Array; epoch: number }
  /** Forget this leecher, take back what is offered to it, and never give it that epoch. */
  | { type: "cancel"; leech: Uint8Array; epoch: number }
  /** Tell the digests of so many chunks. */
  | { type: "digests"; leech: Uint8Array; chunk: number; count: number }
  /** Slow the program's writes to so many bytes a second, 0 for no limit, for so many ms. */
  | { type: "throttle"; leech: Uint8Array; rate: number; milliseconds: number }
  /** Tell the root digest of what was given under an epoch. */
  | { type: "root"; leech: Uint8Array; epoch: number };

/** Where a handover is, as its seeder sees it. */
export type SeederState = "serving" | "offered" | "given" | "released";

/** What a seeder answers. */
export type SeederReply =
  /** Sizes in bytes. `trackId` is another one whenever something may have gone unnoticed. */
  | {
    type: "tracked";
    trackId: Uint8Array;
    epoch: number;
    size: number;
    chunkSize: number;
    generation: number;
  }
  /**
   * What was written; where there is `more`, it is to be asked for at once. `written` is how many
   * bytes were written since tracking began, for rates.
   */
  | { type: "dirty"; generation: number; ranges: RangeList; more: boolean; written: number }
  /**
   * What was written last, and how long it took to prepare while the program went on, to suspend it,
   * and to flush.
   */
  | {
    type: "offer";
    generation: number;
    epoch: number;
    ranges: RangeList;
    more: boolean;
    prepareMs: number;
    suspendMs: number;
    flushMs: number;
  }
  /** Content of the last set; empty where there is no such piece. */
  | { type: "piece"; index: number; content: Uint8Array }
  /** `leech` is to whom it is offered or given; zeroes for nobody. */
  | { type: "outcome"; state: SeederState; epoch: number; leech: Uint8Array }
  /** 16 bytes for each chunk from `chunk` on: the first half of its SHA-256. */
  | { type: "digests"; chunk: number; digests: Uint8Array }
  /** The SHA-256 of size, chunk size and the digests of all chunks. */
  | { type: "root"; root: Uint8Array };

/** Version of the messages. */
export const MESSAGE_VERSION = 3;

/** Limits of single messages. */
export const MESSAGE_LIMIT = {
  /** Ranges of one answer; the rest is `more`. */
  RANGES: 4096,
  /** Chunks whose digests are asked for at once. */
  DIGESTS: 4096,
  /** Bytes of content in a piece. */
  PIECE: 1 << 20,
} as const;

/** Bytes of the id of a leecher or of a tracking. */
export const MESSAGE_ID_BYTES = 16;

/** Bytes of the digest of a chunk, and of a root digest. */
export const DIGEST_BYTES = 16, ROOT_BYTES = 32;
