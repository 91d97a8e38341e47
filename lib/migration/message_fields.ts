/**
 * The fields of messages of a migration, as `messages.ts` lays them out. Pure.
 *
 * @module
 */
import { ProtocolError } from "../backend/errors.ts";
import { RangeList } from "../backend/range_list.ts";
import { getSafeInteger, setSafeInteger } from "../rpc/wire.ts";
import { MESSAGE_ID_BYTES, MESSAGE_LIMIT, MESSAGE_VERSION } from "./messages.ts";

const RANGE_BYTES = 16;
const NOTHING = new Uint8Array(0);

/** Puts a message together, field by field. */
export class MessageWriter {
  #view = new DataView(new ArrayBuffer(96));
  #end = 4;

  constructor(type: number) {
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
export class MessageReader {
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

/** The value. Throws `RangeError` where it is out of bounds. */
export function bounded(value: number, least: number, most: number, what: string): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw new RangeError(`Cannot send ${value} ${what}: there may be ${least} to ${most}`);
}

/** What is thrown for a message that is not well-formed. */
export function malformed(why: string): ProtocolError {
  return new ProtocolError(`Cannot use a message of a migration as ${why}`);
}
