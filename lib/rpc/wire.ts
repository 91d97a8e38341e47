/**
 * The native wire, version 1: numbers, limits and the frame header. Pure; everything on the wire
 * is little-endian.
 *
 * ```text
 * client                                            server
 *   |  ClientHello: versions, features, limits,       |
 *   |    session, lane, export name, token            |
 *   |------------------------------------------------>|  refuses: ServerHello with an error,
 *   |                                                 |  then closes
 *   |  ServerHello: version, features, limits,        |
 *   |    size, region id, instance                    |
 *   |<------------------------------------------------|
 *   |                                                 |
 *   |  READ id=1 ------------------------------------>|
 *   |  WRITE id=2, payload -------------------------->|
 *   |<--------------------------------- WRITE|REPLY 2 |  in any order
 *   |<------------------------ READ|REPLY 1, payload  |
 *   |  FLUSH id=3 ----------------------------------->|
 *   |<--------------------------------- FLUSH|REPLY 3 |
 *   |  BYE ------------------------------------------>|  the session is over: closes
 *   |<----------------------------------- BYE|REPLY 0 |  or at any time: closes, and says why
 * ```
 *
 * One session has up to two connections, its *lanes*: a small read on the urgent lane never waits
 * behind large transfers on the bulk lane. Each does its own hello. A hello of a session and lane
 * that is connected already fences the older connection: the server answers it only when nothing
 * of the older one can change the region any more, so that a request repeated on the new
 * connection is never overtaken by its own past. All requests may be repeated.
 *
 * A server that its client cannot reach dials the client instead (`reverse_hello.ts`).
 *
 * A frame is a header and its payload:
 *
 * ```text
 *  0 u32 bytes of payload that follow the header
 *  4 u8  type (TYPE; replies have REPLY added)
 *  5 u8  flags (FLAG)
 *  6 u16 code: 0, or in a reply the Linux error number
 *  8 u32 id, chosen by the client; a reply repeats it
 * 12 u32 checksum of the content: CRC-32 of the payload before compression
 * 16 u64 offset in the region, below 2^53
 * 24 u64 bytes of the region that the frame is about, below 2^53
 * 32 u32 reserved, 0
 * 36 u32 CRC-32 of the 36 bytes before
 * ```
 *
 * | type    | request payload                | reply payload                              |
 * | ------- | ------------------------------ | ------------------------------------------ |
 * | READ    |                                | content, unless ZERO                       |
 * | WRITE   | content, unless ZERO           |                                            |
 * | FLUSH   |                                |                                            |
 * | ZERO    |                                |                                            |
 * | DISCARD |                                |                                            |
 * | EXTENTS |                                | a prefix of the range (`encodeExtents`)    |
 * | PING    |                                |                                            |
 * | BYE     |                                |                                            |
 * | CONTROL | a message, up to 64 KiB        | a message, up to the largest payload       |
 *
 * CONTROL is for exports that have more to say than their bytes, such as one that can be migrated:
 * where both sides have the feature, its messages go to the export's controller, which may take long
 * to answer. The messages mean nothing here.
 *
 * The payload of a reply with a code is a text for people. A frame whose header is wrong ends the
 * connection, as nothing after it can be trusted; a content whose checksum is wrong is asked for
 * (or sent) once more.
 *
 * @module
 */
import { ERRNO, type ErrnoName, errnoName } from "../../ffi/errno.ts";
import type { Extent } from "../backend/backend.ts";
import { ProtocolError } from "../backend/errors.ts";
import { headerChecksum } from "./checksum.ts";

/** Versions that this implementation speaks. */
export const VERSION = { MIN: 1, MAX: 1 } as const;

/** Types of frames; 0 is reserved. */
export const TYPE = {
  READ: 1,
  WRITE: 2,
  FLUSH: 3,
  ZERO: 4,
  DISCARD: 5,
  EXTENTS: 6,
  PING: 7,
  BYE: 8,
  CONTROL: 9,
} as const;

/** Added to the type of a request in its reply. */
export const REPLY = 0x80;

/** Flags of a frame. */
export const FLAG = {
  /** The content is all zeroes and does not travel. */
  ZERO: 1,
  /** The payload is a zstd frame. */
  ZSTD: 2,
  /** READ: the reply may be compressed. */
  COMPRESS: 4,
  /**
   * READ: answer from a copy. The region's own memory may change between checksum and sending
   * where a write overlaps; a copy tells that apart from a broken transfer.
   */
  COPY: 8,
  /** ZERO: keep the range allocated. */
  ALLOCATE: 16,
} as const;

/** What both sides must agree on in the hello; CONTROL where the export has a controller. */
export const FEATURE = { CRC32: 1, ZSTD: 2, CONTROL: 4 } as const;

/** Lanes of a session; 0 is reserved. */
export const LANE = { URGENT: 1, BULK: 2 } as const;

/** The number of a lane. */
export type Lane = (typeof LANE)[keyof typeof LANE];

/** Bytes of a frame header. */
export const HEADER_BYTES = 40;

/** Limits that hold before any is negotiated, and bounds of the negotiated ones. */
export const LIMIT = {
  /** Bytes of a whole hello. */
  HELLO: 8192,
  /** Bytes of an export name. */
  NAME: 4096,
  /** Bytes of a token. */
  TOKEN: 1024,
  /** Bytes of an error's text. */
  MESSAGE: 1024,
  /** Bytes of a payload: what a side may offer at most, and what it must. */
  PAYLOAD_MAX: 4 << 20,
  PAYLOAD_MIN: 64 << 10,
  /** Requests in flight on one connection. */
  IN_FLIGHT_MAX: 1024,
  IN_FLIGHT_MIN: 1,
  /** Runs in one EXTENTS reply. */
  EXTENTS: 4096,
  /** Bytes of the message of a CONTROL request. */
  CONTROL: 64 << 10,
} as const;

const TWO_32 = 0x1_0000_0000;
const EXTENT_BYTES = 16;
const EXTENT_HOLE = 1, EXTENT_ZERO = 2;

/** Bytes of the largest payload of an EXTENTS reply. */
export const EXTENTS_BYTES_MAX = LIMIT.EXTENTS * EXTENT_BYTES;

/** A frame header, decoded. One object is used again and again. */
export class Frame {
  /** Bytes of payload after the header. */
  payloadLength = 0;
  /** See {@linkcode TYPE} and {@linkcode REPLY}. */
  type = 0;
  /** Bits of {@linkcode FLAG}. */
  flags = 0;
  /** 0, or a Linux error number. */
  code = 0;
  /** Which request. */
  id = 0;
  /** CRC-32 of the content. */
  checksum = 0;
  /** Where in the region. */
  offset = 0;
  /** Bytes of the region. */
  length = 0;

  /** Sets what every frame has; the rest becomes 0. */
  set(type: number, id: number, offset: number, length: number): this {
    this.type = type;
    this.id = id;
    this.offset = offset;
    this.length = length;
    this.payloadLength =
      this.flags =
      this.code =
      this.checksum =
        0;
    return this;
  }
}

/** Writes a header of {@linkcode HEADER_BYTES} at `at`. */
export function encodeFrame(view: DataView, at: number, frame: Frame): void {
  view.setUint32(at, frame.payloadLength, true);
  view.setUint32(at + 4, frame.type | frame.flags << 8 | frame.code << 16, true);
  view.setUint32(at + 8, frame.id, true);
  view.setUint32(at + 12, frame.checksum, true);
  setSafeInteger(view, at + 16, frame.offset);
  setSafeInteger(view, at + 24, frame.length);
  view.setUint32(at + 32, 0, true);
  view.setUint32(at + 36, headerChecksum(view, at, 36), true);
}

/**
 * Reads a header at `at` into `frame`.
 *
 * @param payloadMax What was negotiated.
 * @throws {ProtocolError} The header is damaged, or the payload over the limit.
 */
export function decodeFrame(view: DataView, at: number, frame: Frame, payloadMax: number): void {
  if (view.getUint32(at + 36, true) !== headerChecksum(view, at, 36)) {
    throw new ProtocolError("Cannot use a frame as its header does not match its checksum");
  }
  frame.payloadLength = view.getUint32(at, true);
  const word = view.getUint32(at + 4, true);
  frame.type = word & 0xff;
  frame.flags = word >>> 8 & 0xff;
  frame.code = word >>> 16;
  frame.id = view.getUint32(at + 8, true);
  frame.checksum = view.getUint32(at + 12, true);
  frame.offset = getSafeInteger(view, at + 16);
  frame.length = getSafeInteger(view, at + 24);
  if (view.getUint32(at + 32, true) !== 0) {
    throw new ProtocolError("Cannot use a frame as its reserved word is not 0");
  }
  if (frame.payloadLength > payloadMax) {
    throw new ProtocolError(
      `Cannot take a payload of ${frame.payloadLength} bytes as the limit is ${payloadMax}`,
    );
  }
}

/** Writes a safe integer as a u64. */
export function setSafeInteger(view: DataView, at: number, value: number): void {
  view.setUint32(at, value, true);
  view.setUint32(at + 4, value / TWO_32, true);
}

/** Reads a u64. Throws {@linkcode ProtocolError} over 2^53 - 1. */
export function getSafeInteger(view: DataView, at: number): number {
  const value = view.getUint32(at + 4, true) * TWO_32 + view.getUint32(at, true);
  if (Number.isSafeInteger(value)) return value;
  throw new ProtocolError("Cannot use an offset or length over 2^53 - 1");
}

/** The number that stands for an errno name on the wire; EIO for a name that has none. */
export function codeOf(name: string): number {
  return Object.hasOwn(ERRNO, name) ? ERRNO[name as ErrnoName] : ERRNO.EIO;
}

/** The errno name of a code from the wire. */
export function nameOfCode(code: number): string {
  return errnoName(code);
}

/** An error's text as it travels: UTF-8, cut at {@linkcode LIMIT}`.MESSAGE`. */
export function encodeMessage(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LIMIT.MESSAGE);
  return bytes.subarray(0, new TextEncoder().encodeInto(text, bytes).written);
}

/** A text of the peer for people: control characters do not reach a terminal. */
export function decodeMessage(bytes: Uint8Array): string {
  const text = new TextDecoder().decode(bytes.subarray(0, LIMIT.MESSAGE));
  return text.replaceAll(/\p{Cc}/gu, " ");
}

/**
 * The payload of an EXTENTS reply: for each run a u64 length and a u32 of flags (1 hole, 2 reads
 * as zeroes), then four bytes of 0. At most {@linkcode LIMIT}`.EXTENTS` runs are taken.
 */
export function encodeExtents(extents: Extent[]): Uint8Array<ArrayBuffer> {
  const count = Math.min(extents.length, LIMIT.EXTENTS);
  const view = new DataView(new ArrayBuffer(count * EXTENT_BYTES));
  for (let index = 0; index < count; index++) {
    const { length, hole, zero } = extents[index]!;
    setSafeInteger(view, index * EXTENT_BYTES, length);
    const flags = (hole ? EXTENT_HOLE : 0) | (zero ? EXTENT_ZERO : 0);
    view.setUint32(index * EXTENT_BYTES + 8, flags, true);
  }
  return new Uint8Array(view.buffer);
}

/**
 * The runs of an EXTENTS reply, from `offset` on.
 *
 * @throws {ProtocolError} It is not whole, an empty run is in it, or they do not cover `length`.
 */
export function decodeExtents(payload: Uint8Array, offset: number, length: number): Extent[] {
  const count = payload.length / EXTENT_BYTES;
  const refuse = (why: string): never => {
    throw new ProtocolError(`Cannot use an answer about extents as ${why}`);
  };
  if (!Number.isInteger(count) || count > LIMIT.EXTENTS) return refuse("its size is wrong");
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const extents: Extent[] = [];
  let covered = 0;
  for (let at = 0; at < payload.length; at += EXTENT_BYTES) {
    const run = getSafeInteger(view, at), flags = view.getUint32(at + 8, true);
    if (run === 0 || run > length - covered) return refuse("a run is empty or too long");
    const hole = (flags & EXTENT_HOLE) !== 0, zero = (flags & EXTENT_ZERO) !== 0;
    extents.push({ offset: offset + covered, length: run, hole, zero });
    covered += run;
  }
  return covered === length ? extents : refuse("it does not cover its range");
}
