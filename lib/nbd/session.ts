/**
 * The transmission phase of one NBD connection, server side: requests in, replies out, over any
 * {@linkcode Channel}. Whatever the backend answers at once is answered at once, many requests in
 * one write; what it answers later goes out as it comes.
 *
 * @module
 */
import { type Awaitable, type Backend, extentsOf, writeZeroes } from "../backend/backend.ts";
import { UnsupportedError } from "../backend/errors.ts";
import type { Channel, Protocol, Slot } from "../net/channel.ts";
import { blockStatus } from "./block_status.ts";
import { COMMAND, COMMAND_FLAG, LIMIT, MAGIC, NBD_ERROR, SIZE } from "./constants.ts";
import { ReplyWriter } from "./reply_writer.ts";
import { FailureLog } from "../backend/failure_log.ts";
import { nbdError, refusal, type RequestContext } from "./request.ts";

/** A refused WRITE's payload up to this many bytes is read and dropped; beyond, the connection is. */
const DRAIN_BYTES = 64 << 20;
/** Requests of one connection that the backend may have in hand. */
const IN_FLIGHT_REQUESTS = 1024;
/** Bytes of these. */
const IN_FLIGHT_BYTES = 64 << 20;
/** A large payload is written in pieces of this size, between which more is received. */
const WRITE_PIECE = 128 << 10;
/** BLOCK_STATUS looks no further than this at a time; the client asks on. */
const STATUS_BYTES = 2 ** 31;

/** What was negotiated before. */
export interface SessionOptions {
  /** The export's bytes. */
  backend: Backend;
  /** Transmission flags that the client was told. */
  flags: number;
  /** Whether structured replies were negotiated. */
  structured: boolean;
  /** Id under which `base:allocation` was selected, if it was. */
  allocationId?: number | undefined;
}

interface Reply {
  send: () => void;
  drop: () => void;
}

/** One log for all sessions of this isolate: a backend that fails does so in every one. */
const FAILURES = new FailureLog("Cannot serve an NBD request, as the backend failed");

/** See the module. */
export class NbdSession implements Protocol {
  readonly #channel: Channel;
  readonly #backend: Backend;
  readonly #replies: ReplyWriter;
  readonly #allocationId: number;
  readonly #context: RequestContext;
  /** Replies that came while the channel had no room. */
  readonly #waiting: Reply[] = [];
  /** Bytes to drop of the payload of a WRITE that is refused, and the refusal until it is sent. */
  #drainLeft = 0;
  #refusedHigh = 0;
  #refusedLow = 0;
  #refusal = 0;
  #inFlight = 0;
  #inFlightBytes = 0;
  #paused = false;
  #disconnecting = false;
  #shuttingDown = false;
  #closed = false;

  /** Serves requests that arrive on `channel`, which must hand over to this protocol. */
  constructor(channel: Channel, options: SessionOptions) {
    this.#channel = channel;
    this.#backend = options.backend;
    this.#replies = new ReplyWriter(channel, options.structured);
    this.#allocationId = options.allocationId ?? 0;
    this.#context = {
      size: options.backend.size,
      flags: options.flags,
      allocation: options.allocationId !== undefined,
    };
  }

  /** Answers new requests with ESHUTDOWN, and closes when those in hand are answered. */
  shutdown(): void {
    this.#shuttingDown = true;
    this.#closeWhenAnswered();
  }

  receive(): void {
    while (!this.#closed && !this.#disconnecting && this.#takeRequest());
  }

  drained(): void {
    while (this.#waiting.length > 0 && this.#channel.hasRoom()) this.#waiting.shift()!.send();
    if (this.#waiting.length > 0) return;
    this.receive();
    this.#closeWhenAnswered();
  }

  closed(): void {
    this.#closed = true;
    for (const reply of this.#waiting) reply.drop();
    this.#waiting.length = 0;
  }

  /** Takes one request out of the input, if a whole one is there and may be begun. */
  #takeRequest(): boolean {
    const channel = this.#channel;
    if (this.#drainLeft > 0 && !this.#drain()) return false;
    if (this.#refusal !== 0) return this.#sendRefusal();
    const available = channel.end - channel.start;
    if (available < SIZE.REQUEST) {
      channel.expect(SIZE.REQUEST);
      return false;
    }
    if (this.#waiting.length > 0 || !channel.hasRoom() || this.#saturated()) return false;
    const view = channel.inputView, at = channel.start;
    if (view.getUint32(at) !== MAGIC.REQUEST) {
      this.#disconnect();
      return false;
    }
    const flags = view.getUint16(at + 4);
    const command = view.getUint16(at + 6);
    const offset = view.getUint32(at + 16) * 0x1_0000_0000 + view.getUint32(at + 20);
    const length = view.getUint32(at + 24);
    const payload = command === COMMAND.WRITE ? length : 0;
    const fits = payload <= LIMIT.PAYLOAD;
    if (fits && available < SIZE.REQUEST + payload) {
      channel.expect(SIZE.REQUEST + payload);
      return false;
    }
    const cookieHigh = view.getUint32(at + 8), cookieLow = view.getUint32(at + 12);
    channel.consume(SIZE.REQUEST);
    if (command === COMMAND.DISC) {
      this.#disconnect();
      return false;
    }
    const error = this.#shuttingDown
      ? NBD_ERROR.ESHUTDOWN
      : refusal(this.#context, command, flags, offset, length);
    if (error !== 0) {
      if (payload > 0) this.#refuseWrite(payload, cookieHigh, cookieLow, error);
      else this.#replies.refuse(command, cookieHigh, cookieLow, error);
    } else {
      this.#perform(command, flags, cookieHigh, cookieLow, offset, length);
      if (payload > 0) channel.consume(payload);
    }
    return true;
  }

  #perform(
    command: number,
    flags: number,
    high: number,
    low: number,
    offset: number,
    length: number,
  ): void {
    switch (command) {
      case COMMAND.READ:
        return this.#read(high, low, offset, length);
      case COMMAND.WRITE:
        return this.#write(flags, high, low, offset, length);
      case COMMAND.BLOCK_STATUS:
        return this.#status(flags, high, low, offset, length);
      case COMMAND.FLUSH:
        return this.#flush(high, low);
      case COMMAND.CACHE:
        return this.#replies.acknowledge(high, low);
      default:
        return this.#change(command, flags, high, low, offset, length);
    }
  }

  #read(high: number, low: number, offset: number, length: number): void {
    const { memory } = this.#backend;
    if (length === 0) return this.#replies.emptyRead(high, low);
    if (memory !== undefined) {
      this.#replies.dataHeader(high, low, offset, length);
      return this.#channel.queueMemory(memory, offset, length);
    }
    const slot = this.#channel.acquire(length);
    let result: Awaitable<void>;
    try {
      result = this.#backend.readAt(slot.bytes, offset);
    } catch (error) {
      this.#channel.release(slot);
      return this.#replies.refuse(COMMAND.READ, high, low, this.#errorOf(error));
    }
    if (result === undefined) return this.#sendSlot(high, low, offset, length, slot);
    this.#readLater(result, high, low, offset, length, slot);
  }

  // Apart from #read, so that a read that is answered at once makes no closure.
  #readLater(
    result: Promise<void>,
    high: number,
    low: number,
    offset: number,
    length: number,
    slot: Slot,
  ): void {
    const send = () => this.#sendSlot(high, low, offset, length, slot);
    const refuse = (error: unknown) => {
      this.#channel.release(slot);
      this.#replies.refuse(COMMAND.READ, high, low, this.#errorOf(error));
    };
    this.#await(result, length, send, refuse, () => this.#channel.release(slot));
  }

  #sendSlot(high: number, low: number, offset: number, length: number, slot: Slot): void {
    this.#replies.dataHeader(high, low, offset, length);
    this.#channel.queueSlot(slot, length);
  }

  #write(flags: number, high: number, low: number, offset: number, length: number): void {
    const channel = this.#channel, backend = this.#backend;
    const durable = (flags & COMMAND_FLAG.FUA) !== 0;
    if (backend.writesAtOnce !== true) {
      const payload = channel.input.subarray(channel.start, channel.start + length);
      return this.#writeLater(payload, durable, high, low, offset);
    }
    try {
      for (let done = 0; done < length; done += WRITE_PIECE) {
        const at = channel.start + done, piece = Math.min(WRITE_PIECE, length - done);
        backend.writeAt(channel.input.subarray(at, at + piece), offset + done);
        // A client whose buffer is full while a large payload is copied would go to sleep.
        if (piece < length) channel.readAhead(length);
      }
    } catch (error) {
      return this.#replies.refuse(COMMAND.WRITE, high, low, this.#errorOf(error));
    }
    if (durable) this.#flush(high, low);
    else this.#replies.acknowledge(high, low);
  }

  #writeLater(
    payload: Uint8Array,
    durable: boolean,
    high: number,
    low: number,
    offset: number,
  ): void {
    // The backend may go on reading the payload after the receive buffer was reused.
    const slot = this.#channel.acquire(payload.length);
    slot.bytes.set(payload);
    let result: Awaitable<void>;
    try {
      result = this.#backend.writeAt(slot.bytes, offset);
    } catch (error) {
      this.#channel.release(slot);
      return this.#replies.refuse(COMMAND.WRITE, high, low, this.#errorOf(error));
    }
    if (result !== undefined) return this.#writing(result, slot, durable, high, low);
    this.#channel.release(slot);
    if (durable) this.#flush(high, low);
    else this.#replies.acknowledge(high, low);
  }

  // Apart from #writeLater, so that a write that is answered at once makes no closure.
  #writing(result: Promise<void>, slot: Slot, durable: boolean, high: number, low: number): void {
    const written = result.finally(() => this.#channel.release(slot));
    const done = durable ? written.then(() => this.#backend.flush()) : written;
    const refuse = (error: unknown) =>
      this.#replies.refuse(COMMAND.WRITE, high, low, this.#errorOf(error));
    this.#await(done, slot.bytes.length, () => this.#replies.acknowledge(high, low), refuse);
  }

  #flush(high: number, low: number): void {
    this.#finish(() => this.#backend.flush(), high, low);
  }

  /** TRIM and WRITE_ZEROES. */
  #change(
    command: number,
    flags: number,
    high: number,
    low: number,
    offset: number,
    length: number,
  ): void {
    const backend = this.#backend;
    const durable = (flags & COMMAND_FLAG.FUA) !== 0;
    const fast = (flags & COMMAND_FLAG.FAST_ZERO) !== 0;
    const allocate = (flags & COMMAND_FLAG.NO_HOLE) !== 0;
    const change = (): Awaitable<void> => {
      if (command === COMMAND.TRIM) return backend.discard?.(offset, length);
      if (!fast) return writeZeroes(backend, offset, length, { allocate });
      if (backend.zero === undefined) throw new UnsupportedError("Cannot zero quickly");
      return backend.zero(offset, length, { allocate });
    };
    const refuse = (error: unknown) =>
      error instanceof UnsupportedError && fast ? NBD_ERROR.ENOTSUP : this.#errorOf(error);
    const action = durable
      ? async () => {
        await change();
        await backend.flush();
      }
      : change;
    this.#finish(action, high, low, 0, refuse);
  }

  #status(flags: number, high: number, low: number, offset: number, length: number): void {
    const single = (flags & COMMAND_FLAG.REQ_ONE) !== 0;
    const looked = Math.min(length, STATUS_BYTES);
    const answer = async () => {
      const extents = await extentsOf(this.#backend, offset, looked);
      const payload = blockStatus(this.#allocationId, extents, single);
      return () => this.#replies.blockStatus(high, low, payload);
    };
    const refuse = (error: unknown) =>
      this.#replies.refuse(COMMAND.BLOCK_STATUS, high, low, this.#errorOf(error));
    let send: () => void;
    this.#await(answer().then((ready) => void (send = ready)), 0, () => send(), refuse);
  }

  /** Performs an action and acknowledges it, now or later. */
  #finish(
    action: () => Awaitable<void>,
    high: number,
    low: number,
    bytes = 0,
    toNumber?: (error: unknown) => number,
  ): void {
    let result: Awaitable<void>;
    const refuse = (error: unknown) =>
      this.#replies.simple(high, low, toNumber?.(error) ?? this.#errorOf(error));
    try {
      result = action();
    } catch (error) {
      return refuse(error);
    }
    if (result === undefined) return this.#replies.acknowledge(high, low);
    this.#await(result, bytes, () => this.#replies.acknowledge(high, low), refuse);
  }

  /** The protocol's number for what the backend threw; where that says nothing, the log does. */
  #errorOf(error: unknown): number {
    const number = nbdError(error);
    if (number === NBD_ERROR.EIO) FAILURES.failed(error);
    return number;
  }

  /** Sends the one reply or the other when a promise settles; `drop` where nobody listens. */
  #await(
    promise: Promise<void>,
    bytes: number,
    send: () => void,
    refuse: (error: unknown) => void,
    drop: () => void = () => {},
  ): void {
    this.#inFlight++;
    this.#inFlightBytes += bytes;
    this.#channel.beginAsync();
    promise.then(
      () => this.#settle(bytes, { send, drop }),
      (error) => this.#settle(bytes, { send: () => refuse(error), drop }),
    );
  }

  #settle(bytes: number, reply: Reply): void {
    this.#inFlight--;
    this.#inFlightBytes -= bytes;
    this.#channel.endAsync();
    const sendable = !this.#closed && this.#waiting.length === 0 && this.#channel.hasRoom();
    // Looking for room may have found that the peer is gone.
    if (this.#closed) return reply.drop();
    if (sendable) reply.send();
    else this.#waiting.push(reply);
    if (this.#paused && !this.#overLimit()) {
      this.#paused = false;
      this.#channel.resume();
      this.receive();
    }
    this.#channel.flush();
    this.#closeWhenAnswered();
  }

  #saturated(): boolean {
    if (!this.#overLimit()) return false;
    this.#paused = true;
    this.#channel.pause();
    return true;
  }

  #overLimit(): boolean {
    return this.#inFlight >= IN_FLIGHT_REQUESTS || this.#inFlightBytes >= IN_FLIGHT_BYTES;
  }

  /** Refuses a WRITE once all of it came: clients exist that take no reply while they send. */
  #refuseWrite(length: number, high: number, low: number, error: number): void {
    this.#refusedHigh = high;
    this.#refusedLow = low;
    this.#refusal = error;
    if (length <= DRAIN_BYTES) {
      this.#drainLeft = length;
      return;
    }
    this.#sendRefusal();
    this.#disconnect();
  }

  #sendRefusal(): boolean {
    if (this.#waiting.length > 0 || !this.#channel.hasRoom()) return false;
    this.#replies.simple(this.#refusedHigh, this.#refusedLow, this.#refusal);
    this.#refusal = 0;
    return true;
  }

  #drain(): boolean {
    const channel = this.#channel;
    const now = Math.min(this.#drainLeft, channel.end - channel.start);
    channel.consume(now);
    this.#drainLeft -= now;
    return this.#drainLeft === 0;
  }

  /** Answers what is in hand, then closes: the client said goodbye, or made no sense. */
  #disconnect(): void {
    this.#disconnecting = true;
    this.#channel.pause();
    this.#closeWhenAnswered();
  }

  #closeWhenAnswered(): void {
    if (!this.#disconnecting && !this.#shuttingDown) return;
    if (this.#inFlight === 0 && this.#waiting.length === 0) this.#channel.close();
  }
}
