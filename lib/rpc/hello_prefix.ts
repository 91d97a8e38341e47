/**
 * How every hello begins, whatever its version, and the texts in it. Pure.
 *
 * ```text
 *  0 8 bytes that tell which hello it is
 *  8 u32 bytes of the whole hello
 * 12 u16 who asks: lowest version it speaks; who answers: version chosen, 0 where it refuses
 * 14 u16 who asks: highest version it speaks; who answers: 0, or the Linux error number
 * ```
 *
 * Where the answer is a refusal, a text for people follows.
 *
 * @module
 */
import { ProtocolError } from "../backend/errors.ts";
import { encodeMessage, LIMIT, VERSION } from "./wire.ts";

/** Bytes that tell how long a hello is. */
export const HELLO_PREFIX_BYTES = 16;

/** What the side that is asked answers, where it does not accept. */
export interface Refusal {
  /** A Linux error number. */
  code: number;
  /** Why, for people. */
  message: string;
}

/**
 * The bytes of a whole hello that begins at `at`.
 *
 * @throws {ProtocolError} This is not a hello, or a too long one.
 */
export function prefixLength(view: DataView, at: number, magic: Uint8Array): number {
  for (let index = 0; index < magic.length; index++) {
    if (view.getUint8(at + index) === magic[index]) continue;
    throw new ProtocolError("Cannot talk to a peer that does not speak telemap's native wire");
  }
  const length = view.getUint32(at + 8, true);
  if (length >= HELLO_PREFIX_BYTES && length <= LIMIT.HELLO) return length;
  throw new ProtocolError(`Cannot use a hello of ${length} bytes as the limit is ${LIMIT.HELLO}`);
}

/** The highest version that this side and the one that asks at `at` speak; 0 for none. */
export function commonVersion(view: DataView, at: number): number {
  const version = Math.min(view.getUint16(at + 14, true), VERSION.MAX);
  return version >= Math.max(view.getUint16(at + 12, true), VERSION.MIN) ? version : 0;
}

/** A hello of so many bytes of which the first twelve are there. */
export function beginHello(
  magic: Uint8Array,
  length: number,
): { bytes: Uint8Array<ArrayBuffer>; view: DataView } {
  const bytes = new Uint8Array(length);
  bytes.set(magic);
  const view = viewOf(bytes);
  view.setUint32(8, length, true);
  return { bytes, view };
}

/** A hello that refuses. */
export function refusalHello(magic: Uint8Array, refusal: Refusal): Uint8Array<ArrayBuffer> {
  const message = encodeMessage(refusal.message);
  const { bytes, view } = beginHello(magic, HELLO_PREFIX_BYTES + message.length);
  view.setUint16(14, refusal.code, true);
  bytes.set(message, HELLO_PREFIX_BYTES);
  return bytes;
}

/** All the bytes of an array as a view. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** A text as UTF-8. Throws `RangeError` where it is over its limit. */
export function boundedText(text: string, limit: number, what: string): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  if (bytes.length <= limit) return bytes;
  throw new RangeError(`Cannot send a ${what} of ${bytes.length} bytes as the limit is ${limit}`);
}

/** A text from UTF-8. Throws {@linkcode ProtocolError}. */
export function decodeHelloText(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw malformedHello("a text is not UTF-8");
  }
}

/** A hello is not well-formed, and why. */
export function malformedHello(why: string): ProtocolError {
  return new ProtocolError(`Cannot use a hello as ${why}`);
}
