/**
 * Replies of an NBD server in the transmission phase, simple or structured as was negotiated,
 * written into a {@linkcode Channel} (doc/proto.md, "Simple reply message" and "Structured reply
 * chunk message"). Cookies are the client's u64, as high and low half.
 *
 * @module
 */
import type { Channel } from "../net/channel.ts";
import { CHUNK, CHUNK_DONE, COMMAND, MAGIC, SIZE } from "./constants.ts";

/** See the module. Each call needs room in the channel, as its `hasRoom` says. */
export class ReplyWriter {
  readonly #channel: Channel;
  readonly #structured: boolean;

  /** Writes into `channel`; structured replies where the client negotiated them. */
  constructor(channel: Channel, structured: boolean) {
    this.#channel = channel;
    this.#structured = structured;
  }

  /** The request was carried out, and has no payload to answer with. */
  acknowledge(high: number, low: number): void {
    this.simple(high, low, 0);
  }

  /** The answer to a READ of nothing. */
  emptyRead(high: number, low: number): void {
    if (this.#structured) this.#chunk(high, low, CHUNK.NONE, 0);
    else this.simple(high, low, 0);
  }

  /** The request failed with an error of `NBD_ERROR`. */
  refuse(command: number, high: number, low: number, error: number): void {
    const chunked = command === COMMAND.READ || command === COMMAND.BLOCK_STATUS;
    if (!this.#structured || !chunked) return this.simple(high, low, error);
    this.#chunk(high, low, CHUNK.ERROR, 6);
    const at = this.#channel.reserve(6);
    this.#channel.outputView.setUint32(at, error);
    this.#channel.outputView.setUint16(at + 4, 0);
  }

  /** A simple reply, without its payload; `error` 0 is success. */
  simple(high: number, low: number, error: number): void {
    const at = this.#channel.reserve(SIZE.SIMPLE_REPLY), view = this.#channel.outputView;
    view.setUint32(at, MAGIC.SIMPLE_REPLY);
    view.setUint32(at + 4, error);
    view.setUint32(at + 8, high);
    view.setUint32(at + 12, low);
  }

  /** The extents of a BLOCK_STATUS. */
  blockStatus(high: number, low: number, payload: Uint8Array): void {
    this.#chunk(high, low, CHUNK.BLOCK_STATUS, payload.length);
    this.#channel.queueCopy(payload);
  }

  /** What stands before the data of a READ; the caller queues the data next. */
  dataHeader(high: number, low: number, offset: number, length: number): void {
    if (!this.#structured) return this.simple(high, low, 0);
    this.#chunk(high, low, CHUNK.OFFSET_DATA, 8 + length);
    const at = this.#channel.reserve(8), view = this.#channel.outputView;
    view.setUint32(at, offset / 0x1_0000_0000);
    view.setUint32(at + 4, offset);
  }

  #chunk(high: number, low: number, type: number, length: number): void {
    const at = this.#channel.reserve(SIZE.STRUCTURED_REPLY), view = this.#channel.outputView;
    view.setUint32(at, MAGIC.STRUCTURED_REPLY);
    view.setUint16(at + 4, CHUNK_DONE);
    view.setUint16(at + 6, type);
    view.setUint32(at + 8, high);
    view.setUint32(at + 12, low);
    view.setUint32(at + 16, length);
  }
}
