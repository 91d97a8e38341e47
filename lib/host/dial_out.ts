/**
 * Serves a host's region to a client that cannot reach it: this side dials, and then serves as if
 * the client had dialled.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import { formatAddress, parseAddress } from "../net/address.ts";
import { reachable } from "../net/dial.ts";
import type { BackendHost } from "./host.ts";
import { checkToken } from "./listen_at.ts";

/** How {@linkcode dialOut} serves. */
export interface DialOutOptions {
  /** Refuse writes even where the backend takes them. */
  readOnly?: boolean | undefined;
  /** What the client asks of its servers, and has to show as well. */
  token?: string | undefined;
  /** Connections that are kept for the client to use, 1 to 8; 3 unless told. */
  waiting?: number | undefined;
  /** How long connecting may take, and then each hello, in ms; 10 s unless told. */
  handshakeMs?: number | undefined;
  /** Takes a line for people when the client is lost or found again; default `console.warn`. */
  log?: ((line: string) => void) | undefined;
}

/** A client that is dialled. */
export interface DialOut extends AsyncDisposable {
  /** Where it is dialled. */
  readonly url: string;
  /** Dials it no more, answers what is in hand and drops its connections. */
  close(): Promise<void>;
}

/** Connections that a client keeps waiting at most. */
const WAITING_MOST = 8;

/**
 * Dials a client that listens by `acceptDialled`, again and again until it is there, and serves it
 * until this is closed, or the host.
 *
 * @param url `telemap://HOST:PORT/NAME` or the Unix form; NAME is what the client knows the region
 * by. It is that of the host's export of this name, else its first one.
 * @throws {UsageError} for a URL or option that is not well-formed.
 */
export async function dialOut(
  host: BackendHost,
  url: string | URL,
  options: DialOutOptions = {},
): Promise<DialOut> {
  const address = parseAddress(url);
  if (address.protocol !== "telemap") {
    throw new UsageError(`Cannot dial ${formatAddress(address)} to serve it`, {
      hint: "expected an address of the form telemap://HOST:PORT/NAME",
    });
  }
  reachable(address);
  checkToken(options.token);
  const { readOnly = false, token, waiting = 3, handshakeMs = 10_000 } = options;
  if (!(Number.isInteger(waiting) && waiting > 0 && waiting <= WAITING_MOST)) {
    throw new UsageError(`Cannot keep ${waiting} connections waiting`, {
      hint: `give a number from 1 to ${WAITING_MOST}`,
    });
  }
  if (!(handshakeMs > 0)) throw new UsageError(`Cannot wait ${handshakeMs} ms for a hello`);
  const log = options.log ?? console.warn;
  const dialled = formatAddress(address);
  const hangUp = await host.dial(dialled, { readOnly, token, waiting, handshakeMs }, log);
  let closing: Promise<void> | undefined;
  const close = () => closing ??= hangUp();
  return { url: dialled, close, [Symbol.asyncDispose]: close };
}
