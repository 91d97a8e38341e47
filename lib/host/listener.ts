/**
 * Accepts connections of one listening socket in a reactor, and serves each by the protocol that
 * is spoken there.
 *
 * @module
 */
import { close } from "../../ffi/file.ts";
import type { NbdExport } from "../nbd/export.ts";
import { NbdNegotiation } from "../nbd/negotiation.ts";
import type { NbdSession } from "../nbd/session.ts";
import { Acceptor } from "../net/acceptor.ts";
import type { Protocol } from "../net/channel.ts";
import type { Reactor } from "../net/reactor.ts";
import type { SlotPool } from "../net/slot_pool.ts";
import type { Controller } from "../rpc/export.ts";
import { WireServer } from "../rpc/server.ts";
import { type Connection, Connections } from "./connections.ts";
import type { ExportOptions, ListenOptions, ListenProtocol } from "./protocol.ts";

/** What a {@linkcode Listener} needs beside the backend. */
export interface ListenerOptions extends Omit<ListenOptions, keyof ExportOptions> {
  /** The listening socket; it is closed with the listener. */
  fd: number;
  /** What is spoken on its connections. */
  protocol: ListenProtocol;
  /** What is offered; the first one is the default export. */
  offers: readonly Offer[];
}

/** A region as clients of either protocol are offered it. */
export interface Offer extends NbdExport {
  /** Tells the region from others, and this instance of its server from earlier ones. */
  identity: { region: Uint8Array; instance: Uint8Array };
  /** Takes what clients of the native wire say beside reads and writes. */
  control?: Controller | undefined;
}

/** See the module. */
export class Listener {
  readonly #options: ListenerOptions;
  readonly #wire: WireServer | undefined;
  readonly #acceptor: Acceptor;
  readonly #connections: Connections;

  /** Begins to accept. */
  constructor(reactor: Reactor, pool: SlotPool, options: ListenerOptions) {
    this.#options = options;
    this.#connections = new Connections(reactor, pool);
    if (options.protocol === "telemap") this.#wire = wireServer(options);
    this.#acceptor = new Acceptor(reactor, options.fd, (fd) => this.#serve(fd));
  }

  /** Accepts no more, answers what is in hand, then drops the connections that are left. */
  async close(): Promise<void> {
    this.#acceptor.close();
    await this.#connections.close();
  }

  #serve(fd: number): void {
    if (this.#connections.count >= this.#options.maxConnections) return close(fd);
    this.#connections.serve(fd, (connection) => this.#protocol(connection));
  }

  #protocol(connection: Connection): Protocol {
    if (this.#wire !== undefined) {
      const session = this.#wire.accept(connection.channel);
      connection.session = session;
      return session;
    }
    return new NbdNegotiation(connection.channel, {
      exports: () => this.#options.offers,
      handshakeMs: this.#options.handshakeMs,
      onSession: (session: NbdSession) => connection.session = session,
    });
  }
}

/** Offers regions by the native wire. */
export function wireServer(
  { offers, token, handshakeMs }: Pick<ListenerOptions, "offers" | "token" | "handshakeMs">,
): WireServer {
  return new WireServer({
    lookup: (asked) => {
      const offer = offers.find(({ name }) => name === asked) ?? (asked === "" && offers[0]);
      return offer ? { ...offer, ...offer.identity } : undefined;
    },
    token,
    helloMs: handshakeMs,
  });
}
