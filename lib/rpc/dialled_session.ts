/**
 * A connection that a server made to its client: says the reverse hello, waits for as long as the
 * client has no use for it, then serves it like one that a client made.
 *
 * @module
 */
import {
  ConnectionError,
  DeadlineError,
  ProtocolError,
  RemoteError,
  type TelemapError,
} from "../backend/errors.ts";
import { ERRNO } from "../../ffi/errno.ts";
import type { Channel, Protocol } from "../net/channel.ts";
import { HELLO_PREFIX_BYTES } from "./hello_prefix.ts";
import {
  decodeReverseAnswer,
  encodeReverseHello,
  type ReverseHello,
  reverseHelloLength,
} from "./reverse_hello.ts";
import type { WireServer } from "./server.ts";
import type { WireSession } from "./session.ts";
import { nameOfCode } from "./wire.ts";

/** What a {@linkcode DialledSession} says, and whom it tells. */
export interface DialledSessionOptions {
  /** Whom it was dialled to, for messages. */
  url: string;
  /** What is said. */
  hello: ReverseHello;
  /** How long the client may take for its answer, in ms. */
  helloMs: number;
  /** Serves the connection when the client uses it. */
  server: WireServer;
  /** The client keeps the connection. */
  onKept: () => void;
  /** The client uses it: from now on it is the session's. */
  onTaken: (session: WireSession) => void;
  /** It is gone, and was never used. */
  onGone: (reason: TelemapError) => void;
}

/** See the module. */
export class DialledSession implements Protocol {
  readonly #channel: Channel;
  readonly #options: DialledSessionOptions;
  readonly #cancelDeadline: () => void;
  #kept = false;
  #reason: TelemapError | undefined;

  /** Says hello; attach the channel to this protocol afterwards. */
  constructor(channel: Channel, options: DialledSessionOptions) {
    this.#channel = channel;
    this.#options = options;
    const { url, helloMs } = options;
    this.#cancelDeadline = channel.deadline(helloMs, () => {
      this.#end(new DeadlineError(`${url} did not answer the hello within ${helloMs} ms`));
    });
    channel.queueCopy(encodeReverseHello(options.hello));
  }

  receive(): void {
    if (this.#reason !== undefined) return;
    try {
      if (!this.#kept) this.#takeAnswer();
      if (this.#kept && this.#channel.end > this.#channel.start) this.#handOver();
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#end(error);
    }
  }

  drained(): void {}

  closed(error?: Error): void {
    this.#cancelDeadline();
    const { url, onGone } = this.#options;
    const why = error === undefined ? "" : `: ${error.message}`;
    onGone(this.#reason ?? new ConnectionError(`${url} closed the connection${why}`));
  }

  #takeAnswer(): void {
    const channel = this.#channel;
    const available = channel.end - channel.start;
    if (available < HELLO_PREFIX_BYTES) return channel.expect(HELLO_PREFIX_BYTES);
    const length = reverseHelloLength(channel.inputView, channel.start);
    if (available < length) return channel.expect(length);
    const bytes = channel.input.subarray(channel.start, channel.start + length);
    const refusal = decodeReverseAnswer(bytes);
    channel.consume(length);
    this.#cancelDeadline();
    if (refusal === undefined) {
      this.#kept = true;
      return this.#options.onKept();
    }
    const hint = refusal.code === ERRNO.EACCES ? { hint: "give the token that it asks for" } : {};
    const message = `${this.#options.url} refuses: ${refusal.message}`;
    this.#end(new RemoteError(nameOfCode(refusal.code), message, hint));
  }

  #handOver(): void {
    const session = this.#options.server.accept(this.#channel);
    this.#channel.handOver(session);
    this.#options.onTaken(session);
    session.receive();
  }

  #end(reason: TelemapError): void {
    this.#reason ??= reason;
    this.#channel.close();
  }
}
