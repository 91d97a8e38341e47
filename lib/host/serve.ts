/**
 * Serves a backend to the network: by NBD to any NBD client, by the native wire to telemap.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import { encodeText } from "../nbd/option_codec.ts";
import { type Address, parseAddress } from "../net/address.ts";
import type { ListeningSocket } from "../net/listening_socket.ts";
import { BackendHost } from "./host.ts";
import { checkGuarded, checkToken, listenAt } from "./listen_at.ts";
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
  /** Connections at a time, at each URL; 100 unless told. */
  maxConnections?: number;
  /** How long a handshake may take, in ms; 10 s unless told. */
  handshakeMs?: number;
  /** What a remote backend (`telemap://`) that is served on wants to see. */
  backendToken?: string;
  /** More regions at the same addresses, by other names. */
  exports?: readonly ServedExport[];
}

/** One of several regions that a server offers. */
export interface ServedExport {
  /** What clients ask for it by: not empty, and no other region's. */
  name: string;
  /** The region. */
  backend: BackendSource;
  /** Text for people that NBD clients see beside the name. */
  description?: string;
  /** Refuse writes even where the backend takes them. */
  readOnly?: boolean;
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
  /** Settles when nothing is served any more; with the error, if the server failed. */
  readonly closed: Promise<Error | undefined>;
  /** Flushes and closes. Again: waits for the same. */
  close(): Promise<void>;
}

/** How long a server that is closed tries to flush its backend. */
const FLUSH_MS = 30_000;

/**
 * Serves a backend at one or more URLs until the server is closed.
 *
 * ```ts
 * await using server = await serve("memory:16MiB", ["nbd://127.0.0.1:0", "telemap://127.0.0.1:0"]);
 * console.log(server.urls);
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
  // Before the backend, so that an address that is taken makes no region.
  const places = openPlaces(listen, options);
  let host: BackendHost | undefined;
  try {
    host = await BackendHost.start(backend, { token: options.backendToken });
    for (const { name, backend, description = "", readOnly = false } of options.exports ?? []) {
      await host.export(backend, { name, description, readOnly, token: options.backendToken });
    }
    await places.serve(host);
    return new RunningServer(host, places);
  } catch (error) {
    places.close();
    await host?.close();
    throw error;
  }
}

/** Sockets that listen, and wait for a host that serves them. */
export interface ListeningPlaces {
  /** Where they listen. */
  readonly urls: readonly string[];
  /** Has them served; they belong to the host then. */
  serve(host: BackendHost): Promise<void>;
  /** Closes those that nobody serves, and removes what is left of the others. */
  close(): void;
}

/** Begins to listen. Throws as {@linkcode serve} does. */
export function openPlaces(
  listen: string | URL | readonly (string | URL)[],
  options: ServeOptions,
): ListeningPlaces {
  const urls: readonly (string | URL)[] = Array.isArray(listen) ? listen : [listen as string];
  if (urls.length === 0) throw new UsageError("Cannot serve without a URL to listen at");
  checkOptions(options);
  const addresses = urls.map((url) => parseAddress(url));
  for (const address of addresses) checkGuarded(address, options);
  checkNames(options, addresses);
  const sockets: ListeningSocket[] = [];
  const close = () => {
    for (const socket of sockets) socket.cleanUp();
  };
  try {
    for (const address of addresses) sockets.push(listenAt(address, sockets));
  } catch (error) {
    close();
    throw error;
  }
  return {
    urls: sockets.map(({ url }) => url),
    async serve(host) {
      for (const [index, socket] of sockets.entries()) {
        const address = addresses[index]!;
        await host.listen(socket.fd, address.protocol, listenOptions(address, options));
        socket.handedOver = true;
      }
    },
    close,
  };
}

class RunningServer implements Server {
  readonly #host: BackendHost;
  readonly #places: ListeningPlaces;
  #closing: Promise<void> | undefined;

  constructor(host: BackendHost, places: ListeningPlaces) {
    this.#host = host;
    this.#places = places;
  }

  get urls(): readonly string[] {
    return this.#places.urls;
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

  get closed(): Promise<Error | undefined> {
    return this.#host.ended;
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#places.close();
    await this.#host.close({ flushMs: FLUSH_MS });
  }
}

function checkOptions(options: ServeOptions): void {
  for (const text of [options.name, options.description]) {
    if (text !== undefined) encodeText(text);
  }
  for (const key of ["maxConnections", "handshakeMs"] as const) {
    const value = options[key];
    if (value === undefined || (Number.isSafeInteger(value) && value > 0)) continue;
    throw new UsageError(`Cannot serve with ${key} ${value}`, {
      hint: "give a whole number over 0",
    });
  }
  checkToken(options.token);
}

/** Clients tell regions apart by their names alone. */
function checkNames(options: ServeOptions, addresses: readonly Address[]): void {
  const taken = new Set(addresses.map(({ name }) => options.name ?? name));
  for (const { name, description = "" } of options.exports ?? []) {
    encodeText(name);
    encodeText(description);
    if (name !== "" && !taken.has(name)) {
      taken.add(name);
      continue;
    }
    throw new UsageError(`Cannot serve another region by the name ${JSON.stringify(name)}`, {
      hint: name === "" ? "give it a name" : "that name is taken: give each region its own",
    });
  }
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
