/**
 * Who may connect by the native wire, to what, and in whose place: what all connections of a
 * server share.
 *
 * @module
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { ERRNO } from "../../ffi/errno.ts";
import type { Backend } from "../backend/backend.ts";
import type { Channel } from "../net/channel.ts";
import type { ClientHello, Refusal } from "./hello.ts";
import { WireSession } from "./session.ts";
import { LIMIT } from "./wire.ts";

/** What a client may connect to. */
export interface WireExport {
  /** The region. */
  backend: Backend;
  /** Refuse writes, also where the backend takes them. */
  readOnly: boolean;
  /** 16 bytes that stay the same as long as this is the same region. */
  region: Uint8Array;
  /** 16 bytes that change whenever writes that were not flushed may have been lost. */
  instance: Uint8Array;
}

/** How a {@linkcode WireServer} serves. */
export interface WireServerOptions {
  /** The export of a name; the default export is "". */
  lookup(name: string): WireExport | undefined;
  /** What clients must show; they need not show anything unless told. */
  token?: string | undefined;
  /** How long a client may take for its hello, in ms; 10 s unless told. */
  helloMs?: number | undefined;
  /** How long a wrong token waits for its refusal, so that guessing is slow, in ms; 250 unless told. */
  wrongTokenMs?: number | undefined;
  /** Bytes of the largest payload; 4 MiB unless told, which is the most. */
  payloadMax?: number | undefined;
  /** Requests in flight on one connection; 256 unless told. */
  inFlightMax?: number | undefined;
}

/** Serves exports to any number of connections; sessions are fenced across all of them. */
export class WireServer {
  /** As in the options. */
  readonly helloMs: number;
  /** As in the options. */
  readonly wrongTokenMs: number;
  /** As in the options. */
  readonly payloadMax: number;
  /** As in the options. */
  readonly inFlightMax: number;
  readonly #lookup: (name: string) => WireExport | undefined;
  readonly #tokenDigest: Uint8Array | undefined;
  readonly #connected = new Map<string, WireSession>();

  /** Makes a server without connections. */
  constructor(options: WireServerOptions) {
    const { token, payloadMax = LIMIT.PAYLOAD_MAX, inFlightMax = 256 } = options;
    this.helloMs = options.helloMs ?? 10_000;
    this.wrongTokenMs = options.wrongTokenMs ?? 250;
    this.payloadMax = Math.min(Math.max(payloadMax, LIMIT.PAYLOAD_MIN), LIMIT.PAYLOAD_MAX);
    this.inFlightMax = Math.min(Math.max(inFlightMax, LIMIT.IN_FLIGHT_MIN), LIMIT.IN_FLIGHT_MAX);
    this.#lookup = (name) => options.lookup(name);
    this.#tokenDigest = token === undefined ? undefined : digest(token);
  }

  /** The protocol of a new connection. */
  accept(channel: Channel): WireSession {
    return new WireSession(channel, this);
  }

  /** Whether a client shows the right token; takes as long for any wrong one. */
  admits(hello: ClientHello): boolean {
    return this.#tokenDigest === undefined ||
      timingSafeEqual(digest(hello.token), this.#tokenDigest);
  }

  /** What the client asks for. */
  find(hello: ClientHello): WireExport | Refusal {
    const found = this.#lookup(hello.name);
    if (found !== undefined) return found;
    const name = JSON.stringify(hello.name.slice(0, 100));
    return { code: ERRNO.ENOENT, message: `There is no export named ${name}` };
  }

  /**
   * Puts a connection in the place of the older one of its session and lane, and calls `ready` when
   * nothing of that one can change the region any more. Answers false for a connection that is
   * older itself.
   */
  join(hello: ClientHello, session: WireSession, ready: () => void): boolean {
    const key = keyOf(hello);
    const before = this.#connected.get(key);
    if (before !== undefined && before.attempt >= hello.attempt) return false;
    this.#connected.set(key, session);
    if (before === undefined) ready();
    else before.fence(ready);
    return true;
  }

  /** A connection that joined is over. */
  leave(hello: ClientHello, session: WireSession): void {
    const key = keyOf(hello);
    if (this.#connected.get(key) === session) this.#connected.delete(key);
  }
}

function keyOf(hello: ClientHello): string {
  return String.fromCharCode(hello.lane, ...hello.session);
}

function digest(token: string): Uint8Array {
  return createHash("sha256").update(token).digest();
}
