/**
 * Takes a stream of replies apart, with each payload read right into where it belongs. Pure: it
 * says where the next bytes go, and is told how many came.
 *
 * @module
 */
import { contentChecksum } from "./checksum.ts";
import { decodeFrame, Frame, HEADER_BYTES } from "./wire.ts";

/** Who takes the replies. The frame is only good during the call. */
export interface ReplySink {
  /**
   * Where the payload of this reply goes: exactly as many bytes as it has. Throws
   * `ProtocolError` for a reply that nobody waits for.
   */
  place(reply: Frame): Uint8Array;
  /** A reply is whole. `checksum` is that of the payload as it arrived. */
  complete(reply: Frame, payload: Uint8Array, checksum: number): void;
}

const BUFFER_BYTES = 64 << 10;
/** So much of a payload is worth a read of its own; less comes with what follows, and is copied. */
const DIRECT_BYTES = 16 << 10;
const NOTHING = new Uint8Array(0);

/** See the module. */
export class ReplyReceiver {
  readonly #sink: ReplySink;
  readonly #payloadMax: number;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  readonly #view = new DataView(this.#buffer.buffer);
  readonly #frame = new Frame();
  #start = 0;
  #end = 0;
  #payload: Uint8Array | undefined;
  #filled = 0;
  #checksum = 0;
  #direct = false;

  /** Begins at the start of a frame; payloads have at most `payloadMax` bytes. */
  constructor(sink: ReplySink, payloadMax: number) {
    this.#sink = sink;
    this.#payloadMax = payloadMax;
  }

  /** Where the next bytes of the stream are to be put; never empty. */
  target(): Uint8Array {
    const missing = this.#payload === undefined ? 0 : this.#payload.length - this.#filled;
    this.#direct = missing >= DIRECT_BYTES;
    if (this.#direct) return this.#payload!.subarray(this.#filled);
    this.#buffer.copyWithin(0, this.#start, this.#end);
    this.#end -= this.#start;
    this.#start = 0;
    return this.#buffer.subarray(this.#end);
  }

  /** So many bytes were put at the {@linkcode target}. Throws `ProtocolError`. */
  received(count: number): void {
    if (this.#direct) this.#grow(this.#payload!.subarray(this.#filled, this.#filled + count));
    else this.#end += count;
    while (this.#takeFrame());
  }

  /** Takes what it can out of the buffer; whether there may be more. */
  #takeFrame(): boolean {
    if (this.#payload === undefined) {
      if (this.#end - this.#start < HEADER_BYTES) return false;
      decodeFrame(this.#view, this.#start, this.#frame, this.#payloadMax);
      this.#start += HEADER_BYTES;
      if (this.#frame.payloadLength === 0) {
        this.#sink.complete(this.#frame, NOTHING, 0);
        return true;
      }
      this.#payload = this.#sink.place(this.#frame);
      this.#filled = this.#checksum = 0;
    }
    const missing = this.#payload.length - this.#filled;
    const count = Math.min(missing, this.#end - this.#start);
    if (count === 0) return false;
    const bytes = this.#buffer.subarray(this.#start, this.#start + count);
    this.#payload.set(bytes, this.#filled);
    this.#start += count;
    this.#grow(bytes);
    return this.#payload === undefined;
  }

  /** The payload got these bytes more. */
  #grow(bytes: Uint8Array): void {
    this.#checksum = contentChecksum(bytes, this.#checksum);
    this.#filled += bytes.length;
    const payload = this.#payload!;
    if (this.#filled < payload.length) return;
    this.#payload = undefined;
    this.#sink.complete(this.#frame, payload, this.#checksum);
  }
}
