/**
 * Serves a backend to the network: by NBD to any NBD client, by the native wire to telemap.
 *
 * @module
 */
import { ERRNO, SystemError } from "../../ffi/errno.ts";
import { close as closeDescriptor } from "../../ffi/file.ts";
import { connectUnix, listenTcp, listenUnix } from "../../ffi/socket.ts";
import { UnsupportedError, UsageError } from "../backend/errors.ts";
import { type Address, formatAddress, parseAddress } from "../net/address.ts";
import { BackendHost } from "./host.ts";
import type { ListenOptions } from "./protocol.ts";
import type { BackendSource } from "./source.ts";

/** How {@linkcode serve} serves. */
export interface ServeOptions {
  /** Name of the export; the one in the listen URL, else "" (the default export), unless told. */
  name?: string;
  /** Text for people that NBD clients see beside the name. */
  description?: string;
  /** Refuse writes even where the backend takes them. */
  readOnly?: boolean;
  /** What clients of the native wire must show (1 to 1024 bytes). NBD has no such thing. */
  token?: string;
  /** Listen beyond this host although whoever reaches the port may read and write. */
  insecure?: boolean;
  /** Connections at a time; 100 unless told. */
  maxConnections?: number;
  /** How long a handshake may take, in ms; 10 s unless told. */
  handshakeMs?: number;
  /** What a remote backend (`telemap://`) that is served on wants to see. */
  backendToken?: string;
}

/** A running server. Disposing of it answers what is in hand, flushes and closes the backend. */
export interface Server extends AsyncDisposable {
  /** Where it listens: the first URL, with the port that was chosen. */
  readonly url: string;
  /** All of them. */
  readonly urls: readonly string[];
  /** Bytes of the region. */
  readonly size: number;
  /** Whether a flush survives the loss of power of the backend's store. */
  readonly durable: boolean;
  /** Flushes and closes. Again: waits for the same. */
  close(): Promise<void>;
}

/**
 * Serves a backend at one or more URLs until the server is closed.
 *
 * ```ts no-eval
 * await using server = await serve("memory:1GiB", "nbd+unix:///?socket=/run/region.sock");
 * ```
 *
 * @throws {UsageError} for a URL or option that is not well-formed, and for listening beyond this
 * host without a token unless `insecure`.
 * @throws {SystemError} where listening fails (EADDRINUSE, EACCES, …); nothing is left behind.
 */
export async function serve(
  backend: BackendSource,
  listen: string | URL | readonly (string | URL)[],
  options: ServeOptions = {},
): Promise<Server> {
  const urls: readonly (string | URL)[] = Array.isArray(listen) ? listen : [listen as string];
  if (urls.length === 0) throw new UsageError("Cannot serve without a URL to listen at");
  const addresses = urls.map((url) => checkedAddress(parseAddress(url), options));
  const host = await BackendHost.start(backend, { token: options.backendToken });
  const sockets: ListeningSocket[] = [];
  try {
    for (const address of addresses) {
      const socket = listenAt(address);
      sockets.push(socket);
      await host.listen(socket.fd, address.protocol, listenOptions(address, options));
      socket.handedOver = true;
    }
  } catch (error) {
    await host.close();
    for (const socket of sockets) socket.cleanUp();
    throw error;
  }
  return new RunningServer(host, sockets);
}

class RunningServer implements Server {
  readonly urls: readonly string[];
  readonly #host: BackendHost;
  readonly #sockets: readonly ListeningSocket[];
  #closing: Promise<void> | undefined;

  constructor(host: BackendHost, sockets: readonly ListeningSocket[]) {
    this.#host = host;
    this.#sockets = sockets;
    this.urls = sockets.map(({ url }) => url);
  }

  get url(): string {
    return this.urls[0]!;
  }

  get size(): number {
    return this.#host.facts.size;
  }

  get durable(): boolean {
    return this.#host.facts.durable;
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    try {
      await this.#host.close();
    } finally {
      for (const socket of this.#sockets) socket.cleanUp();
    }
  }
}

/** A listening socket, and the path that it left in the file system. */
class ListeningSocket {
  /** Whether a host owns (and closes) the descriptor. */
  handedOver = false;

  constructor(readonly fd: number, readonly url: string, readonly path: string | undefined) {}

  cleanUp(): void {
    if (!this.handedOver) closeDescriptor(this.fd);
    if (this.path === undefined) return;
    try {
      Deno.removeSync(this.path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

function checkedAddress(address: Address, options: ServeOptions): Address {
  const { transport, protocol } = address;
  if (address.tls) {
    throw new UnsupportedError(`Cannot listen at ${formatAddress(address)}`, {
      hint: "TLS is not there yet; listen on loopback or a Unix socket behind a TLS proxy",
    });
  }
  const guarded = protocol === "telemap" && options.token !== undefined;
  if (transport.kind !== "tcp" || isLoopback(transport.host) || guarded || options.insecure) {
    return address;
  }
  throw new UsageError(`Cannot listen at ${formatAddress(address)} beyond this host`, {
    hint: protocol === "telemap"
      ? "set a token (--token-file), or say that anyone may connect (--insecure)"
      : "NBD has no token: say that anyone may connect (--insecure), or use telemap://",
  });
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host === "[::1]" || /^127\./.test(host);
}

function listenOptions(address: Address, options: ServeOptions): ListenOptions {
  return {
    name: options.name ?? address.name,
    description: options.description ?? "",
    readOnly: options.readOnly ?? false,
    handshakeMs: options.handshakeMs ?? 10_000,
    maxConnections: options.maxConnections ?? 100,
    token: options.token,
  };
}

function listenAt(address: Address): ListeningSocket {
  const { transport } = address;
  switch (transport.kind) {
    case "tcp": {
      const { fd, port } = listenTcp(transport.host, transport.port);
      const bound = { ...address, transport: { ...transport, port } };
      return new ListeningSocket(fd, formatAddress(bound), undefined);
    }
    case "unix": {
      removeStale(transport.path);
      const abstract = transport.path.startsWith("@");
      const fd = listenUnix(transport.path);
      return new ListeningSocket(fd, formatAddress(address), abstract ? undefined : transport.path);
    }
    case "systemd":
      return new ListeningSocket(
        inheritedSocket(transport.fd),
        formatAddress(address),
        undefined,
      );
  }
}

/** Removes the socket that a server which is gone left behind; one that is alive stays. */
function removeStale(path: string): void {
  let found: Deno.FileInfo;
  try {
    found = Deno.lstatSync(path);
  } catch {
    return;
  }
  if (found.isSocket !== true) return;
  try {
    closeDescriptor(connectUnix(path));
  } catch (error) {
    if (error instanceof SystemError && error.errno === ERRNO.ECONNREFUSED) Deno.removeSync(path);
  }
}

/** A socket that the service manager handed over (sd_listen_fds(3)). */
function inheritedSocket(fd: number): number {
  const count = Number(Deno.env.get("LISTEN_FDS") ?? 0);
  if (fd >= 3 && fd < 3 + count) return fd;
  throw new UsageError(`Cannot listen at descriptor ${fd} as no such socket was handed over`, {
    hint: "start the server by socket activation, which sets LISTEN_FDS",
  });
}
