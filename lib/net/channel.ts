/**
 * What a protocol sees of a connection: bytes that came, and replies to be sent. The protocols
 * (NBD, the native wire) are written against this once, whether the bytes move by system calls on
 * a descriptor or through a stream.
 *
 * @module
 */
import type { Backend } from "../backend/backend.ts";

/** What a {@linkcode Channel} calls when something happens. */
export interface Protocol {
  /** More bytes lie in `input[start, end)`; take the whole messages by `consume`. */
  receive(): void;
  /** There is room for replies again, after {@linkcode Channel.hasRoom} said no. */
  drained(): void;
  /** The connection is gone, for whatever reason; called once. Nothing can be sent any more. */
  closed(error?: Error): void;
}

/** A buffer of the {@linkcode Channel}'s pool, at a fixed address. */
export interface Slot {
  /** The bytes; exactly as many as were asked for. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Where they lie, for C. */
  readonly address: number;
}

/** A region that lies in the memory of this process ({@linkcode Backend.memory}). */
export type RegionMemory = NonNullable<Backend["memory"]>;

/** One connection. Everything is called on one thread. */
export interface Channel {
  /** Where received bytes lie; the array may be another one after each return to the channel. */
  readonly input: Uint8Array<ArrayBuffer>;
  /** The same bytes. */
  readonly inputView: DataView<ArrayBuffer>;
  /** First byte not yet consumed. */
  readonly start: number;
  /** End of what was received. */
  readonly end: number;

  /** The first `length` received bytes are done with. */
  consume(length: number): void;
  /**
   * Takes what has come meanwhile from the peer, while the first `held` received bytes are worked
   * on, so that the peer can go on sending.
   */
  readAhead(held: number): void;
  /** The message at `start` has `length` bytes in all: makes room so that it can become whole. */
  expect(length: number): void;

  /** Whether a small reply (up to 64 bytes and one payload) can be queued now. */
  hasRoom(): boolean;
  /**
   * Queues `length` bytes (at most 64) and answers where in `output` the caller writes them,
   * before anything else is queued.
   */
  reserve(length: number): number;
  /** Where reserved bytes lie. */
  readonly outputView: DataView<ArrayBuffer>;
  /** Queues part of a region that lies in memory, without a copy: it is sent as it is by then. */
  queueMemory(memory: RegionMemory, offset: number, length: number): void;
  /** Queues the first `length` bytes of a slot, which goes back to the pool when they are sent. */
  queueSlot(slot: Slot, length: number): void;
  /** Queues a copy of some bytes, for messages that are rare. */
  queueCopy(bytes: Uint8Array): void;
  /** Sends what is queued, as far as the peer takes it. */
  flush(): void;

  /** A buffer of `length` bytes. */
  acquire(length: number): Slot;
  /** Gives a buffer back that was not queued. */
  release(slot: Slot): void;

  /** Says that an asynchronous operation began for this connection. */
  beginAsync(): void;
  /** Says that it is over. */
  endAsync(): void;
  /** Reads nothing more from the peer until {@linkcode resume}: back-pressure. */
  pause(): void;
  /** Goes on reading. */
  resume(): void;
  /** Calls back once in so many ms unless the answer is called before. */
  deadline(milliseconds: number, expire: () => void): () => void;

  /** Gives what comes from now on to another protocol: the next phase on the same connection. */
  handOver(protocol: Protocol): void;
  /** Closes after what is queued was sent, or at once where the peer does not take it. */
  close(error?: Error): void;
}
