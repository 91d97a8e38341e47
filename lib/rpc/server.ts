/**
 * Who may connect by the native wire, to what, and in whose place: what all connections of a
 * server share.
 *
 * @module
 */
import { ERRNO } from "../../ffi/errno.ts";
import type { Channel } from "../net/channel.ts";
import type { WireExport } from "./export.ts";
import type { ClientHello } from "./hello.ts";
import type { Refusal } from "./hello_prefix.ts";
import { type Admission, WireSession } from "./session.ts";
import { TokenCheck, WRONG_TOKEN_MS } from "./token_check.ts";
import { LIMIT } from "./wire.ts";

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
export class WireServer implements Admission {
  readonly helloMs: number;
  readonly wrongTokenMs: number;
  readonly payloadMax: number;
  readonly inFlightMax: number;
  readonly #lookup: (name: string) => WireExport | undefined;
  readonly #token: TokenCheck;
  readonly #connected = new Map<string, WireSession>();

  /** Makes a server without connections. */
  constructor(options: WireServerOptions) {
    const { token, payloadMax = LIMIT.PAYLOAD_MAX, inFlightMax = 256 } = options;
    this.helloMs = options.helloMs ?? 10_000;
    this.wrongTokenMs = options.wrongTokenMs ?? WRONG_TOKEN_MS;
    this.payloadMax = Math.min(Math.max(payloadMax, LIMIT.PAYLOAD_MIN), LIMIT.PAYLOAD_MAX);
    this.inFlightMax = Math.min(Math.max(inFlightMax, LIMIT.IN_FLIGHT_MIN), LIMIT.IN_FLIGHT_MAX);
    this.#lookup = (name) => options.lookup(name);
    this.#token = new TokenCheck(token);
  }

  /** The protocol of a new connection. */
  accept(channel: Channel): WireSession {
    return new WireSession(channel, this);
  }

  admits(hello: ClientHello): boolean {
    return this.#token.admits(hello.token);
  }

  find(hello: ClientHello): WireExport | Refusal {
    const found = this.#lookup(hello.name);
    if (found !== undefined) return found;
    const name = JSON.stringify(hello.name.slice(0, 100));
    return { code: ERRNO.ENOENT, message: `There is no export named ${name}` };
  }

  join(hello: ClientHello, session: WireSession, ready: () => void): boolean {
    const key = keyOf(hello);
    const before = this.#connected.get(key);
    if (before !== undefined && before.attempt >= hello.attempt) return false;
    this.#connected.set(key, session);
    if (before === undefined) ready();
    else before.fence(ready);
    return true;
  }

  leave(hello: ClientHello, session: WireSession): void {
    const key = keyOf(hello);
    if (this.#connected.get(key) === session) this.#connected.delete(key);
  }
}

function keyOf(hello: ClientHello): string {
  return String.fromCharCode(hello.lane, ...hello.session);
}
