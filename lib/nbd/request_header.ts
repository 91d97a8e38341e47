/**
 * The head of a request as a client writes it (doc/proto.md, "Request message").
 *
 * A cookie is two numbers of 32 bits here, so that no BigInt is made for it.
 *
 * @module
 */
import { COMMAND, MAGIC, SIZE } from "./constants.ts";

/** What a request's head says. */
export interface RequestHeader {
  /** One of `COMMAND`. */
  readonly command: number;
  /** Of `COMMAND_FLAG`. */
  readonly flags: number;
  /** First byte; a safe integer. */
  readonly offset: number;
  /** Bytes, at most 2^32 - 1. */
  readonly length: number;
}

/** Writes the 28 bytes of a head at `at`; the reply repeats the cookie. */
export function setRequestHeader(
  view: DataView,
  at: number,
  header: RequestHeader,
  cookieHigh: number,
  cookieLow: number,
): void {
  view.setUint32(at, MAGIC.REQUEST);
  view.setUint16(at + 4, header.flags);
  view.setUint16(at + 6, header.command);
  view.setUint32(at + 8, cookieHigh);
  view.setUint32(at + 12, cookieLow);
  view.setUint32(at + 16, Math.floor(header.offset / 2 ** 32));
  view.setUint32(at + 20, header.offset % 2 ** 32);
  view.setUint32(at + 24, header.length);
}

/** The request that ends a connection; it has no reply. */
export function encodeDisconnect(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SIZE.REQUEST);
  const header = { command: COMMAND.DISC, flags: 0, offset: 0, length: 0 };
  setRequestHeader(new DataView(bytes.buffer), 0, header, 0, 0);
  return bytes;
}
