/**
 * A cursor over one message of the NBD handshake that checks each length before it is used: what
 * is missing, left over or out of its range is a protocol error.
 *
 * @module
 */
import { ProtocolError } from "../backend/errors.ts";
import { LIMIT } from "./constants.ts";

/** Reads one message from its start. Every method throws {@linkcode ProtocolError}. */
export class MessageReader {
  readonly #what: string;
  readonly #view: DataView;
  #at = 0;

  /** Starts at the first byte; `what` names the message in errors. */
  constructor(what: string, bytes: Uint8Array) {
    this.#what = what;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Bytes that were not read yet. */
  get left(): number {
    return this.#view.byteLength - this.#at;
  }

  /** Throws unless so many bytes are left. */
  expect(length: number): void {
    if (length <= this.left) return;
    throw new ProtocolError(
      `Cannot read ${this.#what}: it claims ${length} more bytes where ${this.left} are left`,
    );
  }

  /** Throws unless all was read. */
  end(): void {
    if (this.left === 0) return;
    throw new ProtocolError(`Cannot read ${this.#what}: ${this.left} bytes are left over`);
  }

  /** Reads 16 bits. */
  u16(): number {
    this.expect(2);
    this.#at += 2;
    return this.#view.getUint16(this.#at - 2);
  }

  /** Reads 32 bits. */
  u32(): number {
    this.expect(4);
    this.#at += 4;
    return this.#view.getUint32(this.#at - 4);
  }

  /** Reads 64 bits, which must be a safe integer. */
  u64(): number {
    const value = this.u32() * 2 ** 32 + this.u32();
    if (value <= Number.MAX_SAFE_INTEGER) return value;
    throw new ProtocolError(
      `Cannot use ${this.#what}: it names 2^53 bytes or more, and regions end at 2^53 - 1`,
    );
  }

  /** Reads a string of so many bytes. */
  text(length: number): string {
    this.expect(length);
    if (length > LIMIT.STRING) {
      throw new ProtocolError(
        `Cannot read ${this.#what}: a string of ${length} bytes is over ${LIMIT.STRING}`,
      );
    }
    const { buffer, byteOffset } = this.#view;
    const bytes = new Uint8Array(buffer, byteOffset + this.#at, length);
    this.#at += length;
    const text = decodeUtf8(bytes);
    if (text !== undefined && !text.includes("\0")) return text;
    throw new ProtocolError(
      `Cannot read ${this.#what}: a string in it is ${
        text === undefined ? "not UTF-8" : "cut by a NUL"
      }`,
    );
  }
}

function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
