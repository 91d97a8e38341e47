/**
 * What a leecher asks of a seeder, and what that answers: the messages of a migration, version 2,
 * which ride in CONTROL frames of the native wire. Pure; everything is little-endian.
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
 *
 * Ranges are a u32 that is 1 where there are more of them, their number as u32, and for each a u64
 * offset and a u64 length, in ascending order and apart from each other. All u64 are below 2^53.
 *
 * @module
 */
import { ProtocolError } from "../backend/errors.ts";
import { RangeList } from "../backend/range_list.ts";
import { getSafeInteger, setSafeInteger } from "../rpc/wire.ts";

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
  | { type: "throttle"; leech: Uint8Array; rate: number; milliseconds: number };

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
  | { type: "digests"; chunk: number; digests: Uint8Array };

/** Version of the messages. */
export const MESSAGE_VERSION = 2;

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

/** Bytes of the digest of a chunk. */
export const DIGEST_BYTES = 16;

const REQUESTS = {
  ...{ track: 1, dirty: 2, suspend: 3, last: 4, confirm: 5 },
  ...{ outcome: 6, done: 7, cancel: 8, digests: 9, throttle: 10 },
} as const satisfies Record<SeederRequest["type"], number>;
const REPLIES = {
  tracked: 1,
  dirty: 2,
  offer: 3,
  piece: 4,
  outcome: 5,
  digests: 6,
} as const satisfies Record<SeederReply["type"], number>;
const STATES = { serving: 1, offered: 2, given: 3, released: 4 } as const satisfies Record<
  SeederState,
  number
>;
const RANGE_BYTES = 16, PIECE_HEADER_BYTES = 12;
const NOTHING = new Uint8Array(0);

/** The bytes of a request. Throws `RangeError` for what is over a limit. */
export function encodeRequest(request: SeederRequest): Uint8Array<ArrayBuffer> {
  const message = new MessageWriter(REQUESTS[request.type]);
  message.id(request.leech);
  switch (request.type) {
    case "track":
      message.u32(request.chunkSize);
      break;
    case "dirty":
      message.id(request.trackId);
      message.u64(request.generation);
      break;
    case "suspend":
      message.id(request.trackId);
      message.u64(request.generation);
      message.u64(request.epoch);
      message.u32(request.timeout);
      break;
    case "last":
      message.u64(request.epoch);
      message.u32(request.index);
      break;
    case "confirm":
    case "outcome":
    case "done":
    case "cancel":
      message.u64(request.epoch);
      break;
    case "digests":
      message.u64(request.chunk);
      message.u32(bounded(request.count, 1, MESSAGE_LIMIT.DIGESTS, "chunks"));
      break;
    case "throttle":
      message.u64(request.rate);
      message.u32(request.milliseconds);
      break;
  }
  return message.bytes();
}

/**
 * Decodes a request.
 *
 * @throws {ProtocolError} It is not well-formed, or of a version or type that is not known.
 */
export function decodeRequest(bytes: Uint8Array): SeederRequest {
  const message = new MessageReader(bytes);
  const type = nameOf(REQUESTS, message.type, "request");
  const request = requestOf(type, message.id(), message);
  message.end();
  return request;
}

/** The bytes of a reply. Throws `RangeError` for what is over a limit. */
export function encodeReply(reply: SeederReply): Uint8Array<ArrayBuffer> {
  const message = new MessageWriter(REPLIES[reply.type]);
  switch (reply.type) {
    case "tracked":
      message.id(reply.trackId);
      message.u64(reply.epoch);
      message.u64(reply.size);
      message.u64(reply.generation);
      message.u32(reply.chunkSize);
      return message.bytes();
    case "dirty":
      message.u64(reply.generation);
      message.u64(reply.written);
      message.ranges(reply.ranges, reply.more);
      return message.bytes();
    case "offer":
      message.u64(reply.generation);
      message.u64(reply.epoch);
      message.milliseconds(reply.prepareMs);
      message.milliseconds(reply.suspendMs);
      message.milliseconds(reply.flushMs);
      message.ranges(reply.ranges, reply.more);
      return message.bytes();
    case "piece":
      bounded(reply.content.length, 0, MESSAGE_LIMIT.PIECE, "bytes of content");
      message.u64(reply.index);
      return message.bytes(reply.content);
    case "outcome":
      message.u32(STATES[reply.state]);
      message.u64(reply.epoch);
      message.id(reply.leech);
      return message.bytes();
    case "digests":
      bounded(reply.digests.length, 0, MESSAGE_LIMIT.DIGESTS * DIGEST_BYTES, "bytes of digests");
      message.u64(reply.chunk);
      return message.bytes(reply.digests);
  }
}

/** The bytes of a piece, whose content of so many bytes is still to be put in place. */
export function encodePiece(
  index: number,
  length: number,
): { message: Uint8Array<ArrayBuffer>; content: Uint8Array } {
  bounded(length, 0, MESSAGE_LIMIT.PIECE, "bytes of content");
  const message = new MessageWriter(REPLIES.piece, PIECE_HEADER_BYTES + length);
  message.u64(index);
  const bytes = message.whole();
  return { message: bytes, content: bytes.subarray(PIECE_HEADER_BYTES) };
}

/**
 * Decodes a reply. Content and digests are not copied.
 *
 * @throws {ProtocolError} It is not well-formed, or of a version or type that is not known.
 */
export function decodeReply(bytes: Uint8Array): SeederReply {
  const message = new MessageReader(bytes);
  const reply = replyOf(nameOf(REPLIES, message.type, "reply"), message);
  message.end();
  return reply;
}

function requestOf(
  type: SeederRequest["type"],
  leech: Uint8Array,
  message: MessageReader,
): SeederRequest {
  switch (type) {
    case "track": {
      const chunkSize = message.u32();
      if (chunkSize === 0) throw malformed("its chunks are empty");
      return { type, leech, chunkSize };
    }
    case "dirty":
      return { type, leech, trackId: message.id(), generation: message.u64() };
    case "suspend":
      return {
        ...{ type, leech, trackId: message.id(), generation: message.u64() },
        ...{ epoch: message.u64(), timeout: message.u32() },
      };
    case "last":
      return { type, leech, epoch: message.u64(), index: message.u32() };
    case "confirm":
    case "outcome":
    case "done":
    case "cancel":
      return { type, leech, epoch: message.u64() };
    case "digests": {
      const chunk = message.u64(), count = message.u32();
      if (count > 0 && count <= MESSAGE_LIMIT.DIGESTS) return { type, leech, chunk, count };
      throw malformed(`it asks for ${count} digests`);
    }
    case "throttle":
      return { type, leech, rate: message.u64(), milliseconds: message.u32() };
  }
}

function replyOf(type: SeederReply["type"], message: MessageReader): SeederReply {
  switch (type) {
    case "tracked": {
      const trackId = message.id(), epoch = message.u64(), size = message.u64();
      const generation = message.u64(), chunkSize = message.u32();
      if (chunkSize === 0) throw malformed("its chunks are empty");
      return { type, trackId, epoch, size, chunkSize, generation };
    }
    case "dirty":
      return { type, generation: message.u64(), written: message.u64(), ...message.ranges() };
    case "offer":
      return {
        ...{ type, generation: message.u64(), epoch: message.u64() },
        ...{ prepareMs: message.milliseconds() },
        ...{ suspendMs: message.milliseconds(), flushMs: message.milliseconds() },
        ...message.ranges(),
      };
    case "piece":
      return { type, index: message.u64(), content: message.rest(MESSAGE_LIMIT.PIECE) };
    case "outcome": {
      const state = nameOf(STATES, message.u32(), "state");
      return { type, state, epoch: message.u64(), leech: message.id() };
    }
    case "digests": {
      const chunk = message.u64();
      const digests = message.rest(MESSAGE_LIMIT.DIGESTS * DIGEST_BYTES);
      if (digests.length % DIGEST_BYTES !== 0) throw malformed("a digest is cut");
      return { type, chunk, digests };
    }
  }
}

/** Puts a message together, field by field. */
class MessageWriter {
  #view: DataView<ArrayBuffer>;
  #end = 4;

  /** With room for so many bytes at first. */
  constructor(type: number, room = 96) {
    this.#view = new DataView(new ArrayBuffer(room));
    this.#view.setUint8(0, MESSAGE_VERSION);
    this.#view.setUint8(1, type);
  }

  u32(value: number): void {
    this.#view.setUint32(this.#grow(4), bounded(value, 0, 0xffff_ffff, "as u32"), true);
  }

  u64(value: number): void {
    setSafeInteger(this.#view, this.#grow(8), bounded(value, 0, Number.MAX_SAFE_INTEGER, "as u64"));
  }

  milliseconds(value: number): void {
    if (!(value >= 0 && value < Infinity)) throw new RangeError(`Cannot send ${value} ms`);
    this.#view.setFloat64(this.#grow(8), value, true);
  }

  id(id: Uint8Array): void {
    bounded(id.length, MESSAGE_ID_BYTES, MESSAGE_ID_BYTES, "bytes of an id");
    this.#put(id);
  }

  ranges(ranges: RangeList, more: boolean): void {
    this.u32(more ? 1 : 0);
    this.u32(bounded(ranges.count, 0, MESSAGE_LIMIT.RANGES, "ranges"));
    const at = this.#grow(ranges.count * RANGE_BYTES);
    for (let index = 0; index < ranges.count; index++) {
      const start = ranges.start(index);
      setSafeInteger(this.#view, at + index * RANGE_BYTES, start);
      setSafeInteger(this.#view, at + index * RANGE_BYTES + 8, ranges.end(index) - start);
    }
  }

  /** The message, with these bytes behind what was put together. */
  bytes(rest: Uint8Array = NOTHING): Uint8Array<ArrayBuffer> {
    this.#put(rest);
    return new Uint8Array(this.#view.buffer, 0, this.#end);
  }

  /** All there is room for, also what is not put together yet. */
  whole(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#view.buffer);
  }

  #put(bytes: Uint8Array): void {
    const at = this.#grow(bytes.length);
    new Uint8Array(this.#view.buffer).set(bytes, at);
  }

  /** Makes room for so many bytes, and answers where. */
  #grow(length: number): number {
    const at = this.#end;
    this.#end += length;
    if (this.#end > this.#view.byteLength) {
      const grown = new Uint8Array(this.#end);
      grown.set(new Uint8Array(this.#view.buffer, 0, at));
      this.#view = new DataView(grown.buffer);
    }
    return at;
  }
}

/** Takes a message apart, field by field. Throws {@linkcode ProtocolError} where it ends before. */
class MessageReader {
  readonly type: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 4;

  constructor(bytes: Uint8Array) {
    if (bytes.length < 4) throw malformed("it is too short");
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const version = bytes[0]!;
    if (version !== MESSAGE_VERSION) throw malformed(`its version is ${version}`);
    if (this.#view.getUint16(2, true) !== 0) throw malformed("a reserved word is not 0");
    this.type = bytes[1]!;
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  u64(): number {
    return getSafeInteger(this.#view, this.#take(8));
  }

  milliseconds(): number {
    const value = this.#view.getFloat64(this.#take(8), true);
    if (value >= 0 && value < Infinity) return value;
    throw malformed(`a time is ${value} ms`);
  }

  id(): Uint8Array<ArrayBuffer> {
    const at = this.#take(MESSAGE_ID_BYTES);
    return this.#bytes.slice(at, at + MESSAGE_ID_BYTES) as Uint8Array<ArrayBuffer>;
  }

  ranges(): { ranges: RangeList; more: boolean } {
    const more = this.u32(), count = this.u32();
    if (more > 1) throw malformed("a flag is neither 0 nor 1");
    if (count > MESSAGE_LIMIT.RANGES) throw malformed(`it has ${count} ranges`);
    const at = this.#take(count * RANGE_BYTES);
    const ranges = new RangeList();
    for (let index = 0, before = -1; index < count; index++) {
      const start = getSafeInteger(this.#view, at + index * RANGE_BYTES);
      const end = start + getSafeInteger(this.#view, at + index * RANGE_BYTES + 8);
      if (start <= before || end <= start || !Number.isSafeInteger(end)) {
        throw malformed("its ranges are empty, out of order or too long");
      }
      ranges.add(start, end);
      before = end;
    }
    return { ranges, more: more === 1 };
  }

  /** All that is left, at most so many bytes, as a view. */
  rest(most: number): Uint8Array {
    const length = this.#bytes.length - this.#at;
    if (length > most) throw malformed(`it has ${length} bytes of content`);
    return this.#bytes.subarray(this.#take(length));
  }

  /** Throws unless everything was taken. */
  end(): void {
    if (this.#at !== this.#bytes.length) throw malformed("its size is wrong");
  }

  #take(length: number): number {
    const at = this.#at;
    if (length > this.#bytes.length - at) throw malformed("it is too short");
    this.#at += length;
    return at;
  }
}

function nameOf<Name extends string>(
  numbers: Readonly<Record<Name, number>>,
  number: number,
  what: string,
): Name {
  for (const name in numbers) if (numbers[name] === number) return name;
  throw malformed(`there is no ${what} ${number}`);
}

function bounded(value: number, least: number, most: number, what: string): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw new RangeError(`Cannot send ${value} ${what}: there may be ${least} to ${most}`);
}

function malformed(why: string): ProtocolError {
  return new ProtocolError(`Cannot use a message of a migration as ${why}`);
}
