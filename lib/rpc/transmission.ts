/**
 * The requests of one connection of the native wire, server side. What the backend answers at once
 * is answered at once, many requests in one write; what it answers later goes out as it comes.
 *
 * @module
 */
import { ERRNO } from "../../ffi/errno.ts";
import {
  type Awaitable,
  type Backend,
  checkRange,
  type Extent,
  extentsOf,
  writeZeroes,
} from "../backend/backend.ts";
import {
  errorCode,
  ProtocolError,
  ReadOnlyError,
  TelemapError,
  UnsupportedError,
} from "../backend/errors.ts";
import { isZero } from "../backend/zeroes.ts";
import type { Channel, Slot } from "../net/channel.ts";
import { contentChecksum } from "./checksum.ts";
import { compress, decompress } from "./compression.ts";
import { DeferredReplies } from "./deferred_replies.ts";
import type { Controller } from "./export.ts";
import {
  codeOf,
  decodeFrame,
  encodeExtents,
  encodeFrame,
  encodeMessage,
  FLAG,
  Frame,
  HEADER_BYTES,
  LIMIT,
  REPLY,
  TYPE,
} from "./wire.ts";

/** The backend is asked for the extents of this many bytes at a time, so many times a request. */
const EXTENTS_STEP = 1 << 30, EXTENTS_STEPS = 1024;
/** Bytes that the answer of a controller counts for while it is not there. */
const ANSWER_BYTES = 1 << 20;

/** What a transmission works on, and whom it tells. */
export interface TransmissionOptions {
  /** The region. */
  backend: Backend;
  /** Refuse writes. */
  readOnly: boolean;
  /** Takes messages, where that was agreed on. */
  control: Controller | undefined;
  /** Bytes of the largest payload, as negotiated. */
  payloadMax: number;
  /** Requests in flight, as negotiated. */
  inFlightMax: number;
  /** Calls {@linkcode Transmission.receive} again and treats what it throws. */
  again: () => void;
  /** A request that the backend had in hand is over, or replies that waited are sent. */
  settled: () => void;
  /** The client says that its session is over. */
  bye: () => void;
}

/** See the module. */
export class Transmission {
  readonly #channel: Channel;
  readonly #options: TransmissionOptions;
  readonly #backend: Backend;
  readonly #request = new Frame();
  readonly #reply = new Frame();
  /** Aborted with the connection. */
  readonly #gone = new AbortController();
  readonly #deferred: DeferredReplies;
  #stopped = false;

  /** Serves requests that arrive on `channel`. */
  constructor(channel: Channel, options: TransmissionOptions) {
    this.#channel = channel;
    this.#options = options;
    this.#backend = options.backend;
    const { inFlightMax: most, again: resume, settled } = options;
    this.#deferred = new DeferredReplies(channel, { most, resume, settled });
  }

  /** Whether the backend has a request in hand that changes the region. */
  get changing(): boolean {
    return this.#deferred.changing;
  }

  /** Whether a reply is still to come. */
  get pending(): boolean {
    return this.#deferred.pending;
  }

  /** Performs the whole requests that came. Throws {@linkcode ProtocolError}. */
  receive(): void {
    while (!this.#stopped && this.#takeRequest());
  }

  /** Performs nothing more; what is in hand is answered. */
  stop(): void {
    this.#stopped = true;
  }

  /** Sends what waited for room. */
  sendWaiting(): void {
    this.#deferred.sendWaiting();
  }

  /** The connection is gone. */
  closed(): void {
    this.#gone.abort();
    this.#stopped = true;
    this.#deferred.close();
  }

  /** Takes one request out of the input, if a whole one is there and may be begun. */
  #takeRequest(): boolean {
    const channel = this.#channel, request = this.#request;
    const available = channel.end - channel.start;
    if (available < HEADER_BYTES) {
      channel.expect(HEADER_BYTES);
      return false;
    }
    if (!this.#deferred.mayBegin()) return false;
    decodeFrame(channel.inputView, channel.start, request, this.#options.payloadMax);
    checkPayload(request);
    if (available < HEADER_BYTES + request.payloadLength) {
      channel.expect(HEADER_BYTES + request.payloadLength);
      return false;
    }
    channel.consume(HEADER_BYTES);
    const { payloadLength } = request;
    try {
      this.#perform(request);
    } catch (error) {
      this.#refuse(request.type, request.id, error);
    }
    if (payloadLength > 0) channel.consume(payloadLength);
    return true;
  }

  /** Begins one request; what it throws becomes the reply. */
  #perform(request: Frame): void {
    const { type, id, offset, length } = request;
    const backend = this.#backend;
    switch (type) {
      case TYPE.READ:
        return this.#read(id, request.flags, offset, length);
      case TYPE.WRITE:
        return this.#write(request);
      case TYPE.FLUSH:
        return this.#finish(type, id, 0, 0, backend.flush());
      case TYPE.ZERO: {
        this.#checkChange(offset, length);
        if (backend.zero === undefined) throw new UnsupportedError("Cannot zero quickly");
        const allocate = (request.flags & FLAG.ALLOCATE) !== 0;
        return this.#finish(type, id, offset, length, backend.zero(offset, length, { allocate }));
      }
      case TYPE.DISCARD:
        this.#checkChange(offset, length);
        return this.#finish(type, id, offset, length, backend.discard?.(offset, length));
      case TYPE.EXTENTS:
        checkRange(backend.size, offset, length);
        return this.#extents(id, offset, length);
      case TYPE.PING:
        return this.#acknowledge(type, id, offset, length);
      case TYPE.CONTROL:
        return this.#control(request);
      case TYPE.BYE:
        this.#stopped = true;
        return this.#options.bye();
      default:
        throw new UnsupportedError(`Cannot perform a request of type ${type}`);
    }
  }

  #read(id: number, flags: number, offset: number, length: number): void {
    checkRange(this.#backend.size, offset, length);
    if (length > this.#options.payloadMax) throw new RangeError("Cannot read so much at once");
    const { memory } = this.#backend;
    if (memory !== undefined && (flags & FLAG.COPY) === 0) {
      const content = memory.bytes.subarray(offset, offset + length);
      if (this.#sendShort(id, flags, offset, content)) return;
      this.#contentHeader(id, 0, offset, length, length, contentChecksum(content));
      return this.#channel.queueMemory(memory, offset, length);
    }
    const slot = this.#channel.acquire(length);
    let result: Awaitable<void>;
    try {
      result = this.#backend.readAt(slot.bytes, offset);
    } catch (error) {
      this.#channel.release(slot);
      throw error;
    }
    if (result === undefined) return this.#sendSlot(id, flags, offset, slot);
    this.#readLater(result, id, flags, offset, slot);
  }

  // Apart from #read, so that a read that is answered at once makes no closure.
  #readLater(promise: Promise<void>, id: number, flags: number, offset: number, slot: Slot): void {
    const drop = () => this.#channel.release(slot);
    this.#deferred.add({
      ...{ promise, bytes: slot.bytes.length, changes: false, drop },
      send: () => this.#sendSlot(id, flags, offset, slot),
      refuse: (error) => {
        drop();
        this.#refuse(TYPE.READ, id, error);
      },
    });
  }

  #sendSlot(id: number, flags: number, offset: number, slot: Slot): void {
    const { length } = slot.bytes;
    if (this.#sendShort(id, flags, offset, slot.bytes)) return this.#channel.release(slot);
    this.#contentHeader(id, 0, offset, length, length, contentChecksum(slot.bytes));
    this.#channel.queueSlot(slot, length);
  }

  /** Sends a content as nothing, or compressed, where that can be; answers whether it did. */
  #sendShort(id: number, flags: number, offset: number, content: Uint8Array): boolean {
    if (isZero(content)) {
      this.#contentHeader(id, FLAG.ZERO, offset, content.length, 0, 0);
      return true;
    }
    if ((flags & FLAG.COMPRESS) === 0) return false;
    const packed = compress(content);
    if (packed === undefined) return false;
    const checksum = contentChecksum(content);
    this.#contentHeader(id, FLAG.ZSTD, offset, content.length, packed.length, checksum);
    this.#channel.queueCopy(packed);
    return true;
  }

  #write(request: Frame): void {
    const { id, flags, offset, length, payloadLength } = request;
    const channel = this.#channel, backend = this.#backend;
    this.#checkChange(offset, length);
    if (length > this.#options.payloadMax) throw new RangeError("Cannot write so much at once");
    if ((flags & FLAG.ZERO) !== 0) {
      const zeroed = writeZeroes(backend, offset, length, { allocate: true });
      return this.#finish(TYPE.WRITE, id, offset, length, zeroed);
    }
    const payload = channel.input.subarray(channel.start, channel.start + payloadLength);
    const packed = (flags & FLAG.ZSTD) !== 0;
    const content = packed ? decompress(payload, length) : payload;
    if (content === undefined || contentChecksum(content) !== request.checksum) {
      return this.#sendError(TYPE.WRITE, id, ERRNO.EBADMSG, "The content arrived damaged");
    }
    if (backend.writesAtOnce === true || packed) {
      return this.#finish(TYPE.WRITE, id, offset, length, backend.writeAt(content, offset), length);
    }
    // The backend may go on reading the content after the receive buffer was reused.
    const slot = channel.acquire(length);
    slot.bytes.set(content);
    this.#finish(TYPE.WRITE, id, offset, length, this.#writeSlot(slot, offset), length);
  }

  #writeSlot(slot: Slot, offset: number): Awaitable<void> {
    let result: Awaitable<void>;
    try {
      result = this.#backend.writeAt(slot.bytes, offset);
    } catch (error) {
      this.#channel.release(slot);
      throw error;
    }
    if (result !== undefined) return result.finally(() => this.#channel.release(slot));
    this.#channel.release(slot);
  }

  #extents(id: number, offset: number, length: number): void {
    let runs: Extent[] = [];
    const look = async () => void (runs = await this.#lookForExtents(offset, length));
    const send = () => {
      const payload = encodeExtents(runs);
      const covered = runs.reduce((sum, run) => sum + run.length, 0);
      this.#contentHeader(
        id,
        0,
        offset,
        covered,
        payload.length,
        contentChecksum(payload),
        TYPE.EXTENTS,
      );
      if (payload.length > 0) this.#channel.queueCopy(payload);
    };
    const refuse = (error: unknown) => this.#refuse(TYPE.EXTENTS, id, error);
    this.#deferred.add({ promise: look(), bytes: 0, changes: false, send, refuse });
  }

  /** Runs from `offset` on: as many as fit in a reply and are found in bounded time. */
  async #lookForExtents(offset: number, length: number): Promise<Extent[]> {
    const runs: Extent[] = [];
    const end = offset + length;
    for (let step = 0; step < EXTENTS_STEPS && offset < end; step++) {
      const looked = Math.min(end - offset, EXTENTS_STEP);
      for (const run of await extentsOf(this.#backend, offset, looked)) {
        const last = runs.at(-1);
        if (last !== undefined && last.hole === run.hole && last.zero === run.zero) {
          last.length += run.length;
        } else if (runs.length === LIMIT.EXTENTS) {
          return runs;
        } else {
          runs.push({ ...run });
        }
      }
      offset += looked;
    }
    return runs;
  }

  /** Hands a message to the controller, and sends its answer. */
  #control({ id, checksum, payloadLength }: Frame): void {
    const { control, payloadMax } = this.#options;
    if (control === undefined) throw new UnsupportedError("Cannot take messages here");
    const { input, start } = this.#channel;
    const message = input.slice(start, start + payloadLength);
    if (contentChecksum(message) !== checksum) {
      return this.#sendError(TYPE.CONTROL, id, ERRNO.EBADMSG, "The message arrived damaged");
    }
    let answer: Uint8Array = message;
    const ask = async () => {
      answer = await control(message, this.#gone.signal);
      if (answer.length <= payloadMax) return;
      const { length } = answer;
      throw new TelemapError(
        "EMSGSIZE",
        `Cannot send ${length} bytes over the ${payloadMax} agreed`,
      );
    };
    const send = () => {
      const { length } = answer;
      this.#contentHeader(id, 0, 0, 0, length, contentChecksum(answer), TYPE.CONTROL);
      if (length > 0) this.#channel.queueCopy(answer);
    };
    const refuse = (error: unknown) => this.#refuse(TYPE.CONTROL, id, error);
    const bytes = payloadLength + ANSWER_BYTES;
    this.#deferred.add({ promise: ask(), bytes, changes: false, send, refuse });
  }

  #checkChange(offset: number, length: number): void {
    if (this.#options.readOnly) throw new ReadOnlyError();
    checkRange(this.#backend.size, offset, length);
  }

  /** Acknowledges a request now, or when the promise settles. */
  #finish(
    type: number,
    id: number,
    offset: number,
    length: number,
    result: Awaitable<void>,
    bytes = 0,
  ): void {
    if (result === undefined) return this.#acknowledge(type, id, offset, length);
    this.#deferred.add({
      ...{ promise: result, bytes, changes: type !== TYPE.FLUSH },
      send: () => this.#acknowledge(type, id, offset, length),
      refuse: (error) => this.#refuse(type, id, error),
    });
  }

  #acknowledge(type: number, id: number, offset: number, length: number): void {
    this.#send(this.#reply.set(type | REPLY, id, offset, length));
  }

  #contentHeader(
    id: number,
    flags: number,
    offset: number,
    length: number,
    payloadLength: number,
    checksum: number,
    type: number = TYPE.READ,
  ): void {
    const reply = this.#reply.set(type | REPLY, id, offset, length);
    reply.flags = flags;
    reply.payloadLength = payloadLength;
    reply.checksum = checksum;
    this.#send(reply);
  }

  #refuse(type: number, id: number, error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    this.#sendError(type, id, codeOf(errorCode(error)), message);
  }

  #sendError(type: number, id: number, code: number, message: string): void {
    const payload = encodeMessage(message);
    const reply = this.#reply.set(type | REPLY, id, 0, 0);
    reply.code = code;
    reply.payloadLength = payload.length;
    reply.checksum = contentChecksum(payload);
    this.#send(reply);
    if (payload.length > 0) this.#channel.queueCopy(payload);
  }

  #send(reply: Frame): void {
    const at = this.#channel.reserve(HEADER_BYTES);
    encodeFrame(this.#channel.outputView, at, reply);
  }
}

/** Throws {@linkcode ProtocolError} unless a request has as much payload as one of its type has. */
function checkPayload({ type, flags, length, payloadLength }: Frame): void {
  if ((type & REPLY) !== 0) throw new ProtocolError("Cannot take a reply from a client");
  const packed = (flags & FLAG.ZSTD) !== 0;
  const fits = type === TYPE.CONTROL
    ? payloadLength <= LIMIT.CONTROL
    : type !== TYPE.WRITE || (flags & FLAG.ZERO) !== 0
    ? payloadLength === 0
    : packed
    ? payloadLength <= length
    : payloadLength === length;
  if (fits || type > TYPE.CONTROL) return;
  throw new ProtocolError(`Cannot take a request of type ${type} with ${payloadLength} bytes`);
}
