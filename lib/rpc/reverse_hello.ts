/**
 * The hello of a server that dials its client, as it is behind no open port. Pure.
 *
 * ```text
 * server (dials)                                    client (accepts)
 *   |  ReverseHello: export name, token              |
 *   |----------------------------------------------->|  refuses: answers with an error,
 *   |  ReverseAnswer: version                        |  then closes
 *   |<-----------------------------------------------|
 *   |                                                |  keeps the connection until it needs one
 *   |  ClientHello, and all that follows it          |
 *   |<-----------------------------------------------|
 * ```
 *
 * From then on it is a connection of the native wire like any other (`wire.ts`), on which the side
 * that dialled is the server. Both hellos begin with "TELEMAPR" and the rest of the prefix
 * (`hello_prefix.ts`):
 *
 * | at | ReverseHello, version 1  | at | ReverseAnswer, version 1 |
 * | -- | ------------------------ | -- | ------------------------ |
 * | 16 | u16 bytes of export name | 16 | nothing more             |
 * | 18 | u16 bytes of token       |    |                          |
 * | 20 | name, token              |    |                          |
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
import { decodeMessage, LIMIT, VERSION } from "./wire.ts";

/** What the server says first. */
export interface ReverseHello {
  /** What the client knows the region by, and will ask for. */
  name: string;
  /** What the client asks of its servers; "" for none. */
  token: string;
}

const MAGIC = new TextEncoder().encode("TELEMAPR");
const HELLO_BYTES = 20;

/**
 * The bytes of a whole hello or answer, from its first `HELLO_PREFIX_BYTES`.
 *
 * @throws {ProtocolError} This is not one, or a too long one.
 */
export function reverseHelloLength(view: DataView, at: number): number {
  return prefixLength(view, at, MAGIC);
}

/** The server's hello. Throws `RangeError` where name or token are over their limits. */
export function encodeReverseHello(hello: ReverseHello): Uint8Array<ArrayBuffer> {
  const name = boundedText(hello.name, LIMIT.NAME, "export name");
  const token = boundedText(hello.token, LIMIT.TOKEN, "token");
  const { bytes, view } = beginHello(MAGIC, HELLO_BYTES + name.length + token.length);
  view.setUint16(12, VERSION.MIN, true);
  view.setUint16(14, VERSION.MAX, true);
  view.setUint16(16, name.length, true);
  view.setUint16(18, token.length, true);
  bytes.set(name, HELLO_BYTES);
  bytes.set(token, HELLO_BYTES + name.length);
  return bytes;
}

/**
 * Decodes a whole server's hello of a version that `commonVersion` knows.
 *
 * @throws {ProtocolError} It is not well-formed.
 */
export function decodeReverseHello(bytes: Uint8Array): ReverseHello {
  if (bytes.length < HELLO_BYTES) throw malformedHello("it is too short");
  const view = viewOf(bytes);
  const nameLength = view.getUint16(16, true), tokenLength = view.getUint16(18, true);
  if (nameLength > LIMIT.NAME || tokenLength > LIMIT.TOKEN) {
    throw malformedHello("a text is too long");
  }
  if (bytes.length !== HELLO_BYTES + nameLength + tokenLength) {
    throw malformedHello("its size is wrong");
  }
  const tokenAt = HELLO_BYTES + nameLength;
  return {
    name: decodeHelloText(bytes.subarray(HELLO_BYTES, tokenAt)),
    token: decodeHelloText(bytes.subarray(tokenAt)),
  };
}

/** The client's answer, where it keeps the connection. */
export function encodeReverseAnswer(): Uint8Array<ArrayBuffer> {
  const { bytes, view } = beginHello(MAGIC, HELLO_PREFIX_BYTES);
  view.setUint16(12, VERSION.MAX, true);
  return bytes;
}

/** The client's answer, where it does not. */
export function encodeReverseRefusal(refusal: Refusal): Uint8Array<ArrayBuffer> {
  return refusalHello(MAGIC, refusal);
}

/**
 * Decodes a whole client's answer: the refusal, if it is one.
 *
 * @throws {ProtocolError} It is not well-formed, or chooses a version that was not offered.
 */
export function decodeReverseAnswer(bytes: Uint8Array): Refusal | undefined {
  const view = viewOf(bytes);
  const version = view.getUint16(12, true), code = view.getUint16(14, true);
  if (code !== 0) return { code, message: decodeMessage(bytes.subarray(HELLO_PREFIX_BYTES)) };
  if (version < VERSION.MIN || version > VERSION.MAX) {
    throw malformedHello(`its version is ${version}`);
  }
  if (bytes.length !== HELLO_PREFIX_BYTES) throw malformedHello("its size is wrong");
  return undefined;
}
