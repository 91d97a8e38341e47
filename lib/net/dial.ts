/**
 * Connects to an address within a deadline, with errors that say whom it tried and what to do.
 *
 * @module
 */
import { SystemError } from "../../ffi/errno.ts";
import { lookup } from "node:dns/promises";
import {
  ConnectionError,
  DeadlineError,
  errorCode,
  TelemapError,
  UnsupportedError,
  UsageError,
} from "../backend/errors.ts";
import { type Address, formatAddress, type Transport } from "./address.ts";
import type { Reactor } from "./reactor.ts";
import { type ByteConn, ReactorConn } from "./reactor_conn.ts";

/** How {@linkcode dial} connects. */
export interface DialOptions {
  /** Milliseconds until it gives up; default 10 000. */
  timeout?: number;
  /** Gives up with its reason when it is aborted. */
  signal?: AbortSignal;
  /** The reactor that the connection is to depend on; the runtime's event loop unless told. */
  reactor?: Reactor | undefined;
}

/** A source of connections that are not made to an address: a pool of those that peers made. */
export interface Dialler {
  /**
   * Answers a connection that nobody else has.
   *
   * @throws {ConnectionError | DeadlineError} There is none, or not in time.
   */
  dial(options: { timeout: number; signal: AbortSignal }): Promise<ByteConn>;
  /** Gives no more connections, and closes those that nobody took. */
  close(): void | Promise<void>;
}

/** Milliseconds that connecting takes at most where nothing else is said. */
export const DIAL_TIMEOUT = 10_000;

/**
 * Opens a stream to an address; TCP with TCP_NODELAY and keep-alive.
 *
 * @throws {UsageError} The address is one to listen on only.
 * @throws {UnsupportedError} It asks for TLS.
 * @throws {DeadlineError} The peer did not take the connection in time.
 * @throws {ConnectionError} It could not be made for another reason.
 */
export async function dial(address: Address, options: DialOptions = {}): Promise<ByteConn> {
  const transport = reachable(address);
  const url = formatAddress(address);
  const timeout = options.timeout ?? DIAL_TIMEOUT;
  const { promise: ended, reject: end } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    end(new DeadlineError(`Cannot connect to ${url} as it did not answer within ${timeout} ms`));
  }, timeout);
  const abort = () => end(options.signal?.reason);
  options.signal?.addEventListener("abort", abort);
  const controller = new AbortController();
  const connecting = connect(transport, controller.signal, options.reactor);
  try {
    options.signal?.throwIfAborted();
    return await Promise.race([connecting, ended]);
  } catch (error) {
    controller.abort();
    // The Unix form takes no signal: a connection that comes late is let go of.
    connecting.then((conn) => conn.close(), () => {});
    throw notConnected(url, error);
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", abort);
  }
}

/** What may be connected to. */
export type ReachableTransport = Exclude<Transport, { kind: "systemd" }>;

/**
 * The transport of an address that can be connected to.
 *
 * @throws {UsageError} The address is one to listen on only.
 * @throws {UnsupportedError} It asks for TLS.
 */
export function reachable(address: Address): ReachableTransport {
  const { transport } = address;
  const url = formatAddress(address);
  if (address.tls) {
    throw new UnsupportedError(`Cannot connect to ${url} as TLS is not available yet`);
  }
  if (transport.kind === "systemd") {
    throw new UsageError(`Cannot connect to ${url} as it is an address to listen on`);
  }
  if (transport.kind === "tcp" && transport.port === 0) {
    throw new UsageError(`Cannot connect to ${url} as port 0 is for listening only`, {
      hint: "name the port that the server listens on",
    });
  }
  return transport;
}

/** Why there is no connection, in words, and what to do about it. */
export function notConnected(url: string, error: unknown): TelemapError {
  if (error instanceof TelemapError) return error;
  return new ConnectionError(`Cannot connect to ${url}: ${reasonOf(error)}`, {
    ...{ cause: error, ...hintFor(error) },
  });
}

/** The numeric address of a host. */
export async function resolveHost(host: string): Promise<string> {
  return (await lookup(host.replace(/^\[(.*)\]$/, "$1"))).address;
}

async function connect(
  transport: ReachableTransport,
  signal: AbortSignal,
  reactor: Reactor | undefined,
): Promise<ByteConn> {
  if (transport.kind === "unix") {
    return reactor === undefined
      ? await Deno.connect({ transport: "unix", path: transport.path })
      : ReactorConn.connectUnix(reactor, transport.path);
  }
  const { host, port } = transport;
  if (reactor !== undefined) {
    return await ReactorConn.connectTcp(reactor, await resolveHost(host), port, signal);
  }
  const conn = await Deno.connect({ hostname: host, port, signal });
  conn.setNoDelay();
  conn.setKeepAlive();
  return conn;
}

/** Why it failed; what was tried is said already. */
function reasonOf(error: unknown): string {
  if (error instanceof SystemError) return error.code;
  return error instanceof Error ? error.message : `${error}`;
}

function hintFor(error: unknown): { hint?: string } {
  const code = errorCode(error);
  if (error instanceof Deno.errors.ConnectionRefused || code === "ECONNREFUSED") {
    return { hint: "is the server running?" };
  }
  if (error instanceof Deno.errors.NotFound || code === "ENOENT") {
    return { hint: "there is no such socket: is the server running, with this path?" };
  }
  if (error instanceof Deno.errors.PermissionDenied || code === "EACCES") {
    return { hint: "the socket's owner and mode say who may use it" };
  }
  return {};
}
