/**
 * The requests that are in flight on one connection of the native wire, client side: puts them in
 * frames, and settles them by the replies.
 *
 * @module
 */
import {
  ConnectionError,
  IntegrityError,
  ProtocolError,
  RemoteError,
  type TelemapError,
  UnsupportedError,
} from "../backend/errors.ts";
import type { FlushLedger } from "../backend/flush_ledger.ts";
import { isZero } from "../backend/zeroes.ts";
import { contentChecksum } from "./checksum.ts";
import { compress, type CompressionChoice, decompress } from "./compression.ts";
import type { WireConnection } from "./connection.ts";
import type { ReplySink } from "./reply_receiver.ts";
import type { WireRequest } from "./request.ts";
import {
  decodeExtents,
  decodeMessage,
  EXTENTS_BYTES_MAX,
  FEATURE,
  FLAG,
  Frame,
  LIMIT,
  nameOfCode,
  REPLY,
  TYPE,
} from "./wire.ts";

const NOTHING = new Uint8Array(0);

/** What an exchange works with. */
export interface ExchangeOptions {
  /** Where the connection leads to, for messages. */
  url: string;
  /** Whether to ask for compressed contents. */
  reads: CompressionChoice;
  /** Whether to send compressed contents. */
  writes: CompressionChoice;
  /** What flushes may promise. */
  ledger: FlushLedger;
  /** Takes a request back that is to be sent once more, as its content arrived damaged. */
  repeat: (request: WireRequest) => void;
  /** There is an answer: another request may be sent. */
  answered: () => void;
}

/** See the module. */
export class Exchange implements ReplySink {
  /** When the latest answer came; 0 before. */
  answeredAt = 0;
  /** When the latest request was sent that has its answer; 0 before. */
  answeredSentAt = 0;
  readonly #connection: WireConnection;
  readonly #options: ExchangeOptions;
  readonly #inFlight = new Map<number, WireRequest>();
  readonly #frame = new Frame();
  readonly #packs: boolean;
  #nextId = 1;
  #roundTrip: number;

  /** Begins to receive. */
  constructor(connection: WireConnection, options: ExchangeOptions) {
    this.#connection = connection;
    this.#options = options;
    this.#packs = (connection.server.features & FEATURE.ZSTD) !== 0;
    this.#roundTrip = connection.roundTrip;
    connection.start(this);
  }

  /** Whether one more request may be in flight. */
  get hasRoom(): boolean {
    return this.#inFlight.size < this.#connection.server.inFlightMax;
  }

  /** The request that has been in flight for the longest time. */
  get oldest(): WireRequest | undefined {
    return this.#inFlight.values().next().value;
  }

  /** What is in flight, oldest first. */
  get unanswered(): WireRequest[] {
    return [...this.#inFlight.values()];
  }

  /** Sends a request. */
  send(request: WireRequest): void {
    const { type, offset, length, buffer } = request;
    if ((type === TYPE.READ || type === TYPE.WRITE) && buffer.length !== length) {
      return request.reject(transferredAway());
    }
    const id = this.#newId();
    const frame = this.#frame.set(type, id, offset, length);
    frame.flags = request.flags;
    request.sentAt = performance.now();
    this.#inFlight.set(id, request);
    if (type === TYPE.READ) this.#addWish(frame, request);
    const payload = type === TYPE.WRITE
      ? this.#addContent(frame, request)
      : type === TYPE.CONTROL
      ? addMessage(frame, buffer)
      : NOTHING;
    this.#connection.send(frame, payload);
  }

  /**
   * How long something may be without an answer, in ms, that has been for longer while the server
   * gave others: what was asked for so much later has its answer already. `deadline` is for all
   * that say nothing else.
   */
  passedOver(deadline: number): number | undefined {
    for (const { settled, sentAt, timeout = deadline } of this.#inFlight.values()) {
      if (!settled && this.answeredSentAt - sentAt > timeout) return timeout;
    }
  }

  place(reply: Frame): Uint8Array {
    const request = this.#requestOf(reply);
    const { payloadLength } = reply;
    if (reply.code !== 0) {
      if (payloadLength <= LIMIT.MESSAGE) return new Uint8Array(payloadLength);
      throw new ProtocolError(`Cannot take an error's text of ${payloadLength} bytes`);
    }
    if (request?.type === TYPE.READ && (reply.flags & FLAG.ZERO) === 0) {
      const packed = (reply.flags & FLAG.ZSTD) !== 0;
      // A buffer that its owner transferred away in the meantime has no bytes.
      const elsewhere = packed || request.buffer.length !== request.length;
      const fits = packed ? payloadLength <= request.length : payloadLength === request.length;
      if (fits) return elsewhere ? new Uint8Array(payloadLength) : request.buffer;
    }
    if (request?.type === TYPE.EXTENTS && payloadLength <= EXTENTS_BYTES_MAX) {
      return new Uint8Array(payloadLength);
    }
    if (request?.type === TYPE.CONTROL) {
      const { room } = request;
      const fits = room !== undefined && payloadLength <= room.length;
      return fits ? room.subarray(0, payloadLength) : new Uint8Array(payloadLength);
    }
    throw new ProtocolError(`Cannot take ${payloadLength} bytes in reply to a request`);
  }

  complete(reply: Frame, payload: Uint8Array, checksum: number): void {
    const request = this.#requestOf(reply);
    if (request === undefined) throw this.#goodbye(reply, payload);
    if (reply.code !== 0) this.#completeError(request, reply, payload);
    else if (request.type === TYPE.READ) this.#completeRead(request, reply, payload, checksum);
    else if (request.type === TYPE.EXTENTS) {
      this.#completeExtents(request, reply, payload, checksum);
    } else if (request.type === TYPE.CONTROL) {
      this.#completeControl(request, reply, payload, checksum);
    } else this.#succeed(request);
    // Only now: a reply that breaks the protocol leaves its request unanswered.
    this.#inFlight.delete(reply.id);
    this.#observe(request, reply);
    this.#options.answered();
  }

  /** The request of a reply that fits it; `undefined` for a goodbye. */
  #requestOf(reply: Frame): WireRequest | undefined {
    if (reply.type === (TYPE.BYE | REPLY)) return undefined;
    const request = this.#inFlight.get(reply.id);
    if (request === undefined) {
      throw new ProtocolError(`Cannot take a reply to request ${reply.id}, which nobody made`);
    }
    const fits = reply.type === (request.type | REPLY) && (reply.code !== 0 ||
      reply.offset === request.offset &&
        (reply.length === request.length ||
          request.type === TYPE.EXTENTS && reply.length < request.length));
    if (fits) return request;
    throw new ProtocolError(`Cannot take a reply to request ${reply.id} that answers another one`);
  }

  #goodbye(reply: Frame, payload: Uint8Array): TelemapError {
    const why = reply.code === 0 ? "" : `: ${decodeMessage(payload)}`;
    const message = `The server said goodbye${why}`;
    const broken = nameOfCode(reply.code) === "EPROTO";
    return broken ? new ProtocolError(message) : new ConnectionError(message);
  }

  #completeRead(request: WireRequest, reply: Frame, payload: Uint8Array, checksum: number): void {
    const { buffer, length } = request;
    if (buffer.length !== length) return request.reject(transferredAway());
    if ((reply.flags & FLAG.ZERO) !== 0) {
      buffer.fill(0);
    } else if ((reply.flags & FLAG.ZSTD) !== 0) {
      const content = decompress(payload, length);
      const intact = content !== undefined && contentChecksum(content) === reply.checksum;
      if (!intact) return this.#repeat(request);
      buffer.set(content);
    } else if (payload.length !== length) {
      throw new ProtocolError("Cannot take a reply to READ that has no content");
    } else if (checksum !== reply.checksum) {
      return this.#repeat(request);
    }
    this.#succeed(request);
  }

  #completeExtents(
    request: WireRequest,
    reply: Frame,
    payload: Uint8Array,
    checksum: number,
  ): void {
    if (checksum !== reply.checksum) return this.#repeat(request);
    request.extents = decodeExtents(payload, request.offset, reply.length);
    if (reply.length === 0) throw new ProtocolError("Cannot take an empty answer about extents");
    this.#succeed(request);
  }

  #completeControl(
    request: WireRequest,
    reply: Frame,
    payload: Uint8Array,
    checksum: number,
  ): void {
    if (checksum !== reply.checksum) return this.#repeat(request);
    request.answer = payload;
    this.#succeed(request);
  }

  #completeError(request: WireRequest, reply: Frame, payload: Uint8Array): void {
    const code = nameOfCode(reply.code);
    const sent = request.type === TYPE.WRITE || request.type === TYPE.CONTROL;
    if (code === "EBADMSG" && sent) return this.#repeat(request);
    const message = `${this.#options.url} answered: ${decodeMessage(payload)}`;
    request.reject(
      code === "EOPNOTSUPP" ? new UnsupportedError(message) : new RemoteError(code, message),
    );
  }

  #succeed(request: WireRequest): void {
    const { ledger } = this.#options;
    if (request.changes) ledger.acknowledge();
    else if (request.type === TYPE.FLUSH) ledger.flushed(request.mark);
    request.resolve();
  }

  /** Asks for a content that arrived damaged, or sends it, once more. */
  #repeat(request: WireRequest): void {
    if (++request.damaged === 1) return void this.#options.repeat(request);
    const what = request.type === TYPE.CONTROL
      ? "A message"
      : `${request.length} bytes at offset ${request.offset}`;
    request.reject(
      new IntegrityError(
        `${what} arrived damaged twice on the way from or to ${this.#options.url}`,
      ),
    );
  }

  /** What an answer tells about the link. */
  #observe(request: WireRequest, reply: Frame): void {
    const now = performance.now();
    const elapsed = now - request.sentAt;
    const { type, length, sentAt } = request;
    if (reply.payloadLength === 0 && type !== TYPE.FLUSH) {
      this.#roundTrip = Math.min(this.#roundTrip, elapsed);
    }
    // Answers come one after the other: this one took the lane's time since the one before it.
    const since = Math.max(this.answeredAt, sentAt + Math.min(this.#roundTrip, elapsed));
    const content = reply.code === 0 && (reply.flags & FLAG.ZERO) === 0 && !request.allZero;
    if (content && type === TYPE.READ) {
      this.#options.reads.observe(request.packed, length, now - since);
    }
    if (content && type === TYPE.WRITE) {
      this.#options.writes.observe(request.packed, length, now - since);
    }
    this.answeredAt = now;
    this.answeredSentAt = Math.max(this.answeredSentAt, sentAt);
  }

  #addWish(frame: Frame, request: WireRequest): void {
    if (request.damaged > 0) frame.flags |= FLAG.COPY;
    request.packed = this.#packs && this.#options.reads.choose(request.length);
    if (request.packed) frame.flags |= FLAG.COMPRESS;
  }

  /** Puts the content of a WRITE in its header, and answers the payload. */
  #addContent(frame: Frame, request: WireRequest): Uint8Array {
    // The second time it is sent from a copy that nobody can change on the way.
    const content = request.damaged > 0 ? request.buffer.slice() : request.buffer;
    request.allZero = isZero(content);
    if (request.allZero) {
      frame.flags |= FLAG.ZERO;
      return NOTHING;
    }
    request.packed = this.#packs && this.#options.writes.choose(request.length);
    const packed = request.packed ? compress(content) : undefined;
    if (packed !== undefined) frame.flags |= FLAG.ZSTD;
    const payload = packed ?? content;
    frame.checksum = contentChecksum(content);
    frame.payloadLength = payload.length;
    return payload;
  }

  #newId(): number {
    const id = this.#nextId;
    this.#nextId = id === 0xffff_ffff ? 1 : id + 1;
    return this.#inFlight.has(id) ? this.#newId() : id;
  }
}

function addMessage(frame: Frame, message: Uint8Array): Uint8Array {
  frame.checksum = contentChecksum(message);
  frame.payloadLength = message.length;
  return message;
}

function transferredAway(): TypeError {
  return new TypeError("Cannot use a buffer that was transferred away in the meantime");
}
