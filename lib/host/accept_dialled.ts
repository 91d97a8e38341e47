/**
 * Regions whose servers dial this host, as they are behind no open port (`dialOut`).
 *
 * @module
 */
import { EventFd } from "../../ffi/epoll.ts";
import { close } from "../../ffi/file.ts";
import { UsageError } from "../backend/errors.ts";
import { Acceptor } from "../net/acceptor.ts";
import { type Address, formatAddress, parseAddress } from "../net/address.ts";
import type { Dialler } from "../net/dial.ts";
import type { ListeningSocket } from "../net/listening_socket.ts";
import { Reactor } from "../net/reactor.ts";
import { ReactorConn } from "../net/reactor_conn.ts";
import { connectTelemap, type ConnectTelemapOptions, type RemoteBackend } from "../rpc/client.ts";
import { DialledConnections, type DialledConnectionsOptions } from "../rpc/dialled_connections.ts";
import { checkGuarded, checkToken, type Guard, listenAt } from "./listen_at.ts";

/** How {@linkcode acceptDialled} accepts. */
export interface AcceptDialledOptions
  extends Guard, Pick<DialledConnectionsOptions, "helloMs" | "wrongTokenMs" | "waitingMost"> {
  /** Exports that servers may dial in for; the one in the URL unless told. */
  names?: readonly string[] | undefined;
  /** What connections depend on; a reactor of its own unless told. */
  reactor?: Reactor | undefined;
}

/**
 * Takes the connections of servers that dial, and connects to the regions that they serve.
 *
 * ```ts
 * await using servers = acceptDialled("telemap://127.0.0.1:4100/disk");
 * await using region = await servers.connect();
 * ```
 *
 * @param listen As the URLs of `serve`.
 * @throws {UsageError} The URL or an option is not well-formed, or anybody beyond this host could
 * be a server: that takes a token, or `insecure`.
 * @throws {SystemError} Listening fails (EADDRINUSE, EACCES, …).
 */
export function acceptDialled(
  listen: string | URL,
  options: AcceptDialledOptions = {},
): DialledServers {
  const address = parseAddress(listen);
  if (address.protocol !== "telemap") {
    throw new UsageError(`Cannot wait for servers at ${formatAddress(address)}`, {
      hint: "expected an address of the form telemap://HOST:PORT/NAME",
    });
  }
  checkToken(options.token);
  checkGuarded(address, options);
  return new DialledServers(listenAt(address), options);
}

/** See {@linkcode acceptDialled}. */
export class DialledServers implements AsyncDisposable {
  /** Where it listens, with the port that was chosen. */
  readonly url: string;
  readonly #address: Address;
  readonly #token: string | undefined;
  readonly #socket: ListeningSocket;
  readonly #reactor: Reactor;
  readonly #ownReactor: OwnReactor | undefined;
  readonly #acceptor: Acceptor;
  readonly #connections: DialledConnections;
  readonly #regions: RemoteBackend[] = [];
  #closing: Promise<void> | undefined;

  /** Begins to accept; {@linkcode acceptDialled} is the way in. */
  constructor(socket: ListeningSocket, options: AcceptDialledOptions) {
    const { names, reactor, ...rest } = options;
    this.url = socket.url;
    this.#socket = socket;
    this.#address = parseAddress(socket.url);
    this.#token = options.token;
    this.#ownReactor = reactor === undefined ? new OwnReactor() : undefined;
    this.#reactor = reactor ?? this.#ownReactor!.reactor;
    this.#connections = new DialledConnections({
      ...{ ...rest, url: this.url, names: names ?? [this.#address.name] },
    });
    this.#acceptor = new Acceptor(this.#reactor, socket.fd, (fd) => this.#welcome(fd));
    socket.handedOver = true;
  }

  /** Connections that wait for an export, that of the URL unless told. */
  waiting(name: string = this.#address.name): number {
    return this.#connections.waiting(name);
  }

  /** Answers when a connection waits for an export. Throws the reason of `signal` where it is aborted. */
  arrived(name: string = this.#address.name, signal?: AbortSignal): Promise<void> {
    return this.#connections.arrived(name, signal);
  }

  /**
   * Gives the connections for an export: an option of `connectTelemap`, with the same reactor. What
   * they are used for is to be closed before this.
   */
  dialler(name: string = this.#address.name): Dialler {
    return this.#connections.dialler(name);
  }

  /**
   * Waits until a server dials in for an export, and connects to its region. Throws what
   * `connectTelemap` throws, and the reason of `signal`.
   */
  async connect(
    options: ConnectTelemapOptions & { name?: string; signal?: AbortSignal } = {},
  ): Promise<RemoteBackend> {
    const { name = this.#address.name, signal, ...rest } = options;
    const url = formatAddress({ ...this.#address, name });
    if (this.waiting(name) === 0) {
      (options.log ?? console.warn)(`Waiting for a server to dial ${url}`);
    }
    await this.arrived(name, signal);
    const region = await connectTelemap(url, {
      ...{ token: this.#token, reactor: this.#reactor, dialler: this.dialler(name), ...rest },
    });
    this.#regions.push(region);
    return region;
  }

  /** Listens no more, and closes what waits and the regions that were connected to. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  /** As {@linkcode close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#acceptor.close();
    this.#socket.cleanUp();
    await this.#connections.close();
    await Promise.all(this.#regions.map((region) => region.close()));
    await this.#ownReactor?.close();
  }

  #welcome(fd: number): void {
    let conn: ReactorConn;
    try {
      conn = ReactorConn.accepted(this.#reactor, fd);
    } catch {
      // It is gone already, or there is no memory for it.
      return close(fd);
    }
    this.#connections.welcome(conn);
  }
}

/** A reactor of an isolate that has none. */
class OwnReactor {
  readonly #wake = new EventFd();
  readonly reactor = new Reactor(this.#wake);
  readonly #running = this.reactor.run();

  async close(): Promise<void> {
    this.reactor.stop();
    await this.#running;
    this.reactor[Symbol.dispose]();
    this.#wake[Symbol.dispose]();
  }
}
