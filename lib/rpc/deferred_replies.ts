/**
 * The requests of one connection that the backend has in hand, and the replies to them that wait
 * for room: how many there may be, and what becomes of them when the connection ends.
 *
 * @module
 */
import type { Channel } from "../net/channel.ts";

/** Bytes of contents that the backend may have in hand for one connection. */
const BYTES_MOST = 64 << 20;

/** What {@linkcode DeferredReplies} keeps to, and whom it tells. */
export interface DeferredRepliesOptions {
  /** Requests that the backend may have in hand. */
  most: number;
  /** Requests may be taken again. */
  resume: () => void;
  /** The backend is done with a request, or what waited is sent. */
  settled: () => void;
}

/** A request that is not answered at once. */
export interface Deferred {
  /** Settles when the backend is done with it. */
  promise: Promise<void>;
  /** Bytes of content that are kept until then. */
  bytes: number;
  /** Whether it changes the region. */
  changes: boolean;
  /** Sends the reply. */
  send: () => void;
  /** Sends the other one. */
  refuse: (error: unknown) => void;
  /** Neither can be sent any more. */
  drop?: () => void;
}

interface Reply {
  send: () => void;
  drop: (() => void) | undefined;
}

/** See the module. */
export class DeferredReplies {
  readonly #channel: Channel;
  readonly #options: DeferredRepliesOptions;
  readonly #waiting: Reply[] = [];
  #count = 0;
  #bytes = 0;
  #changes = 0;
  #paused = false;
  #closed = false;

  /** Sends replies to `channel`. */
  constructor(channel: Channel, options: DeferredRepliesOptions) {
    this.#channel = channel;
    this.#options = options;
  }

  /** Whether the backend has a request in hand that changes the region. */
  get changing(): boolean {
    return this.#changes > 0;
  }

  /** Whether a reply is still to come. */
  get pending(): boolean {
    return this.#count > 0 || this.#waiting.length > 0;
  }

  /** Whether another request may be begun; where not, the channel is told to read no more. */
  mayBegin(): boolean {
    if (this.#waiting.length > 0 || !this.#channel.hasRoom()) return false;
    if (!this.#overLimit()) return true;
    this.#paused = true;
    this.#channel.pause();
    return false;
  }

  /** Sends one reply or the other when the backend is done. */
  add(deferred: Deferred): void {
    this.#count++;
    this.#bytes += deferred.bytes;
    if (deferred.changes) this.#changes++;
    this.#channel.beginAsync();
    deferred.promise.then(
      () => this.#settle(deferred, deferred.send),
      (error) => this.#settle(deferred, () => deferred.refuse(error)),
    );
  }

  /** Sends what waited for room. */
  sendWaiting(): void {
    while (this.#waiting.length > 0 && this.#channel.hasRoom()) this.#waiting.shift()!.send();
    this.#options.settled();
  }

  /** The connection is gone. */
  close(): void {
    this.#closed = true;
    for (const reply of this.#waiting.splice(0)) reply.drop?.();
    this.#options.settled();
  }

  #settle(deferred: Deferred, send: () => void): void {
    this.#count--;
    this.#bytes -= deferred.bytes;
    if (deferred.changes) this.#changes--;
    this.#channel.endAsync();
    const { drop } = deferred;
    if (this.#closed) drop?.();
    else if (this.#waiting.length === 0 && this.#channel.hasRoom()) send();
    else this.#waiting.push({ send, drop });
    this.#options.settled();
    if (this.#closed) return;
    if (this.#paused && !this.#overLimit()) {
      this.#paused = false;
      this.#channel.resume();
      this.#options.resume();
    }
    this.#channel.flush();
  }

  #overLimit(): boolean {
    return this.#count >= this.#options.most || this.#bytes >= BYTES_MOST;
  }
}
