/**
 * The hello of the native wire: the first message each way. Pure.
 *
 * Both begin alike in every version, so that sides that share none can tell each other: with
 * "TELEMAP\n" and the rest of the prefix (`hello_prefix.ts`).
 *
 * | at | ClientHello, version 1   | at | ServerHello, version 1             |
 * | -- | ------------------------ | -- | ---------------------------------- |
 * | 16 | u32 features offered     | 16 | u32 features chosen                |
 * | 20 | u32 largest payload      | 20 | u32 largest payload, of both sides |
 * | 24 | u32 requests in flight   | 24 | u32 requests in flight, of both    |
 * | 28 | u16 lane                 | 28 | u32 block size                     |
 * | 30 | u16 reserved, 0          | 32 | u64 size of the region             |
 * | 32 | 16 bytes session id      | 40 | 16 bytes region id                 |
 * | 48 | u32 attempt              | 56 | 16 bytes instance                  |
 * | 52 | u16 bytes of export name | 72 | u32 1 read-only, 2 durable         |
 * | 54 | u16 bytes of token       | 76 | u32 reserved, 0                    |
 * | 56 | name, token              |    |                                    |
 *
 * The *region id* stays the same as long as the bytes are the same region. The *instance* changes
 * whenever writes that were acknowledged, but not flushed, may have been lost: with the process for
 * bytes in its memory, with the boot of the machine for files.
 *
 * @module
 */
import {
  beginHello,
  boundedText,
  decodeHelloText,
  HELLO_PREFIX_BYTES,
  malformedHello,
  prefixLength,
  type Refusal,
  refusalHello,
  viewOf,
} from "./hello_prefix.ts";
import {
  decodeMessage,
  FEATURE,
  getSafeInteger,
  LANE,
  type Lane,
  LIMIT,
  setSafeInteger,
  VERSION,
} from "./wire.ts";

/** Bytes of a session id, region id or instance. */
export const ID_BYTES = 16;

const MAGIC = new TextEncoder().encode("TELEMAP\n");
const CLIENT_BYTES = 56, SERVER_BYTES = 80;
const READ_ONLY = 1, DURABLE = 2;

/** What a client says first. */
export interface ClientHello {
  /** Bits of {@linkcode FEATURE}. */
  features: number;
  /** Bytes of payload that it takes in a frame. */
  payloadMax: number;
  /** Requests that it wants to have in flight. */
  inFlightMax: number;
  /** Which connection of its session this is. */
  lane: Lane;
  /** 16 random bytes; a secret of the client, as they fence. */
  session: Uint8Array;
  /** Counts the connections of this lane: a later one fences those before. */
  attempt: number;
  /** The export; "" is the default one. */
  name: string;
  /** What the server asks of its clients; "" for none. */
  token: string;
}

/** What the server answers, where it accepts. */
export interface ServerHello {
  /** The version to be spoken. */
  version: number;
  /** Features of both sides. */
  features: number;
  /** Bytes of payload that a frame may have. */
  payloadMax: number;
  /** Requests that may be in flight. */
  inFlightMax: number;
  /** As the backend's. */
  blockSize: number;
  /** As the backend's. */
  size: number;
  /** Which region this is. */
  region: Uint8Array;
  /** See the module. */
  instance: Uint8Array;
  /** Whether writes are refused. */
  readOnly: boolean;
  /** As the backend's. */
  durable: boolean;
}

/**
 * The bytes of a whole hello, from its first {@linkcode HELLO_PREFIX_BYTES}.
 *
 * @throws {ProtocolError} This is not a hello, or a too long one.
 */
export function helloLength(view: DataView, at: number): number {
  return prefixLength(view, at, MAGIC);
}

/** The client's hello. Throws `RangeError` where name or token are over their limits. */
export function encodeClientHello(hello: ClientHello): Uint8Array<ArrayBuffer> {
  const name = boundedText(hello.name, LIMIT.NAME, "export name");
  const token = boundedText(hello.token, LIMIT.TOKEN, "token");
  const { bytes, view } = beginHello(MAGIC, CLIENT_BYTES + name.length + token.length);
  view.setUint16(12, VERSION.MIN, true);
  view.setUint16(14, VERSION.MAX, true);
  view.setUint32(16, hello.features, true);
  view.setUint32(20, hello.payloadMax, true);
  view.setUint32(24, hello.inFlightMax, true);
  view.setUint16(28, hello.lane, true);
  bytes.set(hello.session.subarray(0, ID_BYTES), 32);
  view.setUint32(48, hello.attempt, true);
  view.setUint16(52, name.length, true);
  view.setUint16(54, token.length, true);
  bytes.set(name, CLIENT_BYTES);
  bytes.set(token, CLIENT_BYTES + name.length);
  return bytes;
}

/**
 * Decodes a whole client's hello of a version that `commonVersion` knows.
 *
 * @throws {ProtocolError} It is not well-formed.
 */
export function decodeClientHello(bytes: Uint8Array): ClientHello {
  const view = viewOf(bytes);
  if (bytes.length < CLIENT_BYTES) throw malformedHello("it is too short");
  const nameLength = view.getUint16(52, true), tokenLength = view.getUint16(54, true);
  if (nameLength > LIMIT.NAME || tokenLength > LIMIT.TOKEN) {
    throw malformedHello("a text is too long");
  }
  if (bytes.length !== CLIENT_BYTES + nameLength + tokenLength) {
    throw malformedHello("its size is wrong");
  }
  if (view.getUint16(30, true) !== 0) throw malformedHello("a reserved word is not 0");
  const tokenAt = CLIENT_BYTES + nameLength;
  return {
    features: view.getUint32(16, true),
    payloadMax: view.getUint32(20, true),
    inFlightMax: view.getUint32(24, true),
    lane: decodeLane(view.getUint16(28, true)),
    session: bytes.slice(32, 32 + ID_BYTES),
    attempt: view.getUint32(48, true),
    name: decodeHelloText(bytes.subarray(CLIENT_BYTES, tokenAt)),
    token: decodeHelloText(bytes.subarray(tokenAt)),
  };
}

/** The server's hello where it accepts. */
export function encodeServerHello(hello: ServerHello): Uint8Array<ArrayBuffer> {
  const { bytes, view } = beginHello(MAGIC, SERVER_BYTES);
  view.setUint16(12, hello.version, true);
  view.setUint32(16, hello.features, true);
  view.setUint32(20, hello.payloadMax, true);
  view.setUint32(24, hello.inFlightMax, true);
  view.setUint32(28, hello.blockSize, true);
  setSafeInteger(view, 32, hello.size);
  bytes.set(hello.region.subarray(0, ID_BYTES), 40);
  bytes.set(hello.instance.subarray(0, ID_BYTES), 56);
  view.setUint32(72, (hello.readOnly ? READ_ONLY : 0) | (hello.durable ? DURABLE : 0), true);
  return bytes;
}

/** The server's hello where it refuses. */
export function encodeRefusal(refusal: Refusal): Uint8Array<ArrayBuffer> {
  return refusalHello(MAGIC, refusal);
}

/**
 * Decodes a whole server's hello.
 *
 * @throws {ProtocolError} It is not well-formed, or chooses what was not offered.
 */
export function decodeServerHello(bytes: Uint8Array): ServerHello | Refusal {
  const view = viewOf(bytes);
  const version = view.getUint16(12, true), code = view.getUint16(14, true);
  if (code !== 0) return { code, message: decodeMessage(bytes.subarray(HELLO_PREFIX_BYTES)) };
  if (version < VERSION.MIN || version > VERSION.MAX) {
    throw malformedHello(`its version is ${version}`);
  }
  if (bytes.length !== SERVER_BYTES) throw malformedHello("its size is wrong");
  if (view.getUint32(76, true) !== 0) throw malformedHello("a reserved word is not 0");
  const flags = view.getUint32(72, true);
  const hello: ServerHello = {
    version,
    features: view.getUint32(16, true),
    payloadMax: view.getUint32(20, true),
    inFlightMax: view.getUint32(24, true),
    blockSize: view.getUint32(28, true),
    size: getSafeInteger(view, 32),
    region: bytes.slice(40, 40 + ID_BYTES),
    instance: bytes.slice(56, 56 + ID_BYTES),
    readOnly: (flags & READ_ONLY) !== 0,
    durable: (flags & DURABLE) !== 0,
  };
  checkServerHello(hello);
  return hello;
}

function checkServerHello(hello: ServerHello): void {
  const { payloadMax, inFlightMax, blockSize } = hello;
  if (payloadMax < LIMIT.PAYLOAD_MIN || payloadMax > LIMIT.PAYLOAD_MAX) {
    throw malformedHello(`its largest payload is ${payloadMax} bytes`);
  }
  if (inFlightMax < LIMIT.IN_FLIGHT_MIN || inFlightMax > LIMIT.IN_FLIGHT_MAX) {
    throw malformedHello(`it lets ${inFlightMax} requests be in flight`);
  }
  if (blockSize === 0 || blockSize > payloadMax) {
    throw malformedHello(`its block size is ${blockSize}`);
  }
  if ((hello.features & FEATURE.CRC32) === 0) throw malformedHello("it has no checksum");
}

function decodeLane(number: number): Lane {
  if (number === LANE.URGENT || number === LANE.BULK) return number;
  throw malformedHello(`its lane is ${number}`);
}
