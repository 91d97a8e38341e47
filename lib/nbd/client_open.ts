/**
 * Opens connections to NBD servers: dials, shakes hands, and chooses an export, all within one
 * deadline.
 *
 * @module
 */
import { ConnectionError, DeadlineError, TelemapError, UsageError } from "../backend/errors.ts";
import { type Address, formatAddress } from "../net/address.ts";
import { dial } from "../net/dial.ts";
import type { Reactor } from "../net/reactor.ts";
import type { ByteConn } from "../net/reactor_conn.ts";
import { ClientHandshake, type ExportDescription } from "./client_handshake.ts";
import { encodeDisconnect } from "./request_header.ts";
import type { ServerReply } from "./option_codec.ts";

/** An export, and how its server answers on one connection. */
export interface NegotiatedExport extends ExportDescription {
  /** Whether replies are structured. */
  readonly structured: boolean;
  /** Id of the meta context `base:allocation`, where the server has it. */
  readonly allocation: number | undefined;
}

/** A stream at the start of its transmission phase. */
export interface OpenExport {
  /** The stream. */
  readonly conn: ByteConn;
  /** What was negotiated on it. */
  readonly negotiated: NegotiatedExport;
}

/**
 * Connects and enters the transmission phase; `timeout` in milliseconds bounds all of it, and
 * `signal` ends it early.
 */
export function openExport(
  address: Address,
  timeout: number,
  signal?: AbortSignal,
  reactor?: Reactor,
): Promise<OpenExport> {
  return shakeHands(address, { timeout, signal, reactor }, async (handshake, conn) => {
    const structured = handshake.isFixed && await handshake.structuredReplies();
    const allocation = structured ? await handshake.allocationContext(address.name) : undefined;
    const description = await handshake.go(address.name);
    return { conn, negotiated: { ...description, structured, allocation } };
  });
}

/**
 * Lists the exports of a server. The address's own name plays no part.
 *
 * @throws {RemoteError} The server does not say.
 */
export async function listExports(address: Address, timeout = 10_000): Promise<ServerReply[]> {
  return await shakeHands(address, { timeout }, async (handshake, conn) => {
    const exports = await handshake.list();
    await handshake.abort();
    conn.close();
    return exports;
  });
}

/**
 * Asks for everything that a server says of one export without using it.
 *
 * @throws {RemoteError} The server refuses it; code ENOENT where it has no such export.
 */
export async function describeExport(
  address: Address,
  timeout = 10_000,
): Promise<NegotiatedExport> {
  return await shakeHands(address, { timeout }, async (handshake, conn) => {
    const structured = handshake.isFixed && await handshake.structuredReplies();
    const allocation = structured ? await handshake.allocationContext(address.name) : undefined;
    const { found, entered } = await handshake.info(address.name);
    if (entered) await conn.write(encodeDisconnect()).catch(() => {});
    else await handshake.abort();
    conn.close();
    return { ...found, structured, allocation };
  });
}

interface ShakeOptions {
  timeout: number;
  signal?: AbortSignal | undefined;
  reactor?: Reactor | undefined;
}

/** Runs a handshake; closes the stream where it fails or the time is over. */
async function shakeHands<T>(
  address: Address,
  { timeout, signal, reactor }: ShakeOptions,
  talk: (handshake: ClientHandshake, conn: ByteConn) => Promise<T>,
): Promise<T> {
  const url = formatAddress(address);
  if (address.protocol !== "nbd") {
    throw new UsageError(`Cannot speak NBD with ${url}`, {
      hint: "expected an address of the form nbd://HOST:PORT/NAME",
    });
  }
  const deadline = performance.now() + timeout;
  const conn = await dial(address, { timeout, ...(signal && { signal }), reactor });
  let end: unknown;
  const stop = (reason: unknown) => {
    if (end !== undefined) return;
    end = reason;
    conn.close();
  };
  const abort = () => stop(signal?.reason);
  const timer = setTimeout(() => {
    stop(new DeadlineError(`Cannot shake hands with ${url} as it took more than ${timeout} ms`));
  }, Math.max(0, deadline - performance.now()));
  signal?.addEventListener("abort", abort);
  try {
    signal?.throwIfAborted();
    return await talk(await ClientHandshake.start(conn), conn);
  } catch (error) {
    stop(
      error instanceof TelemapError ? error : new ConnectionError(
        `Lost ${url} during the handshake: ${error instanceof Error ? error.message : error}`,
        { cause: error, hint: "is it an NBD server?" },
      ),
    );
    throw end;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}
