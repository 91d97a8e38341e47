/**
 * One connection of the native wire, server side: takes the client's hello, then has its requests
 * performed by a {@linkcode Transmission}.
 *
 * @module
 */
import { ERRNO } from "../../ffi/errno.ts";
import { ProtocolError } from "../backend/errors.ts";
import type { Channel, Protocol } from "../net/channel.ts";
import type { WireExport } from "./export.ts";
import {
  type ClientHello,
  decodeClientHello,
  encodeRefusal,
  encodeServerHello,
  helloLength,
} from "./hello.ts";
import { commonVersion, HELLO_PREFIX_BYTES, type Refusal } from "./hello_prefix.ts";
import { wrongToken } from "./token_check.ts";
import { Transmission } from "./transmission.ts";
import {
  encodeFrame,
  encodeMessage,
  FEATURE,
  Frame,
  HEADER_BYTES,
  REPLY,
  TYPE,
  VERSION,
} from "./wire.ts";

/** Who may connect, to what, and in whose place: what the connections of a server share. */
export interface Admission {
  /** How long a client may take for its hello, in ms. */
  readonly helloMs: number;
  /** How long a wrong token waits for its refusal, in ms. */
  readonly wrongTokenMs: number;
  /** Bytes of the largest payload. */
  readonly payloadMax: number;
  /** Requests in flight on one connection. */
  readonly inFlightMax: number;
  /** Whether a client shows the right token; takes as long for any wrong one. */
  admits(hello: ClientHello): boolean;
  /** What the client asks for. */
  find(hello: ClientHello): WireExport | Refusal;
  /**
   * Puts a connection in the place of the older one of its session and lane, and calls `ready` when
   * nothing of that one can change the region any more. Answers false for a connection that is
   * older itself.
   */
  join(hello: ClientHello, session: WireSession, ready: () => void): boolean;
  /** A connection that joined is over. */
  leave(hello: ClientHello, session: WireSession): void;
}

/** See the module. Made by `WireServer.accept`. */
export class WireSession implements Protocol {
  readonly #channel: Channel;
  readonly #admission: Admission;
  readonly #cancelDeadline: () => void;
  #hello: ClientHello | undefined;
  #transmission: Transmission | undefined;
  #ended = false;
  #closed = false;
  /** Waits until the connection whose place it takes is over. */
  #joining = false;
  #shuttingDown = false;
  /** Called when nothing of this connection can change the region any more. */
  #onceOver: (() => void)[] = [];

  /** Waits for a hello on `channel`. */
  constructor(channel: Channel, admission: Admission) {
    this.#channel = channel;
    this.#admission = admission;
    this.#cancelDeadline = channel.deadline(admission.helloMs, () => {
      this.#refuse({ code: ERRNO.ETIMEDOUT, message: "The hello did not come in time" });
      channel.flush();
    });
  }

  /** Which connection of its lane this is, once it said so. */
  get attempt(): number {
    return this.#hello?.attempt ?? 0;
  }

  /** Drops the connection, and calls back when nothing of it can change the region any more. */
  fence(over: () => void): void {
    this.#end();
    this.#onceOver.push(over);
    this.#settled();
  }

  /** Takes no further request, answers those in hand, then closes. */
  shutdown(): void {
    this.#shuttingDown = true;
    this.#transmission?.stop();
    this.#settled();
  }

  receive(): void {
    if (this.#ended) return;
    try {
      if (this.#transmission !== undefined) this.#transmission.receive();
      else if (this.#hello === undefined) this.#takeHello();
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      if (this.#transmission !== undefined) this.#sayBye(error);
      else this.#refuse({ code: ERRNO.EPROTO, message: error.message }, error);
    }
  }

  drained(): void {
    this.#transmission?.sendWaiting();
    this.receive();
  }

  closed(): void {
    this.#ended = this.#closed = true;
    this.#cancelDeadline();
    this.#transmission?.closed();
    this.#settled();
  }

  #takeHello(): void {
    const channel = this.#channel;
    const available = channel.end - channel.start;
    if (available < HELLO_PREFIX_BYTES) return channel.expect(HELLO_PREFIX_BYTES);
    const length = helloLength(channel.inputView, channel.start);
    if (available < length) return channel.expect(length);
    if (commonVersion(channel.inputView, channel.start) === 0) {
      const message = `This server speaks versions ${VERSION.MIN} to ${VERSION.MAX} of the wire`;
      return this.#refuse({ code: ERRNO.EPROTO, message });
    }
    const hello = decodeClientHello(channel.input.subarray(channel.start, channel.start + length));
    channel.consume(length);
    this.#cancelDeadline();
    this.#hello = hello;
    this.#admit(hello);
  }

  #admit(hello: ClientHello): void {
    // Whoever is not welcome yet gets nothing read.
    this.#channel.pause();
    if (!this.#admission.admits(hello)) {
      this.#channel.deadline(this.#admission.wrongTokenMs, () => {
        this.#refuse(wrongToken(hello.token));
        this.#channel.flush();
      });
      return;
    }
    if ((hello.features & FEATURE.CRC32) === 0) throw new ProtocolError("No checksum in common");
    const found = this.#admission.find(hello);
    if ("code" in found) return this.#refuse(found);
    this.#joining = true;
    if (!this.#admission.join(hello, this, () => this.#welcome(hello, found))) {
      this.#joining = false;
      this.#refuse({ code: ERRNO.ESTALE, message: "A later connection took this one's place" });
    }
  }

  #welcome(hello: ClientHello, target: WireExport): void {
    this.#joining = false;
    if (this.#ended) return this.#settled();
    const { backend, region, instance, control } = target;
    const readOnly = target.readOnly || backend.readOnly;
    const known = FEATURE.CRC32 | FEATURE.ZSTD | (control === undefined ? 0 : FEATURE.CONTROL);
    const features = hello.features & known;
    const limits = {
      payloadMax: Math.min(hello.payloadMax, this.#admission.payloadMax),
      inFlightMax: Math.min(hello.inFlightMax, this.#admission.inFlightMax),
    };
    const { size, blockSize, durable } = backend;
    const version = VERSION.MAX;
    this.#channel.queueCopy(encodeServerHello({
      ...{ version, features, ...limits, blockSize, size, region, instance, readOnly, durable },
    }));
    this.#transmission = new Transmission(this.#channel, {
      ...{ backend, readOnly, ...limits },
      control: (features & FEATURE.CONTROL) === 0 ? undefined : control,
      again: () => this.receive(),
      settled: () => this.#settled(),
      bye: () => this.#end(),
    });
    this.#channel.resume();
    this.#channel.flush();
    this.receive();
  }

  #settled(): void {
    if (this.#shuttingDown && this.#transmission?.pending !== true) this.#end();
    if (this.#joining || this.#transmission?.changing === true) return;
    for (const over of this.#onceOver.splice(0)) over();
    // A connection that is gone keeps its place until nothing of it can change the region.
    if (this.#closed && this.#hello !== undefined) this.#admission.leave(this.#hello, this);
  }

  #refuse(refusal: Refusal, error?: Error): void {
    if (this.#ended) return;
    this.#channel.queueCopy(encodeRefusal(refusal));
    this.#end(error);
  }

  #sayBye(error: Error): void {
    if (this.#channel.hasRoom()) {
      const message = encodeMessage(error.message);
      const frame = new Frame().set(TYPE.BYE | REPLY, 0, 0, 0);
      frame.code = ERRNO.EPROTO;
      frame.payloadLength = message.length;
      const at = this.#channel.reserve(HEADER_BYTES);
      encodeFrame(this.#channel.outputView, at, frame);
      this.#channel.queueCopy(message);
    }
    this.#end(error);
  }

  #end(error?: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#channel.close(error);
  }
}
