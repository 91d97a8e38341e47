/**
 * Accepts connections of one listening socket in a reactor, and serves each by the protocol that
 * is spoken there.
 *
 * @module
 */
import { close } from "../../ffi/file.ts";
import { setNoDelay, setSendBuffer } from "../../ffi/socket.ts";
import type { NbdExport } from "../nbd/export.ts";
import { NbdNegotiation } from "../nbd/negotiation.ts";
import type { NbdSession } from "../nbd/session.ts";
import { Acceptor } from "../net/acceptor.ts";
import type { Protocol } from "../net/channel.ts";
import { DescriptorChannel } from "../net/descriptor_channel.ts";
import type { Reactor } from "../net/reactor.ts";
import type { SlotPool } from "../net/slot_pool.ts";
import type { Controller } from "../rpc/export.ts";
import { WireServer } from "../rpc/server.ts";
import type { ExportOptions, ListenOptions, ListenProtocol } from "./protocol.ts";

/** The kernel's default for Unix sockets, 208 KiB, cuts a large reply into many writes. */
const SEND_BUFFER = 4 << 20;
/** How long clients may take to read what was answered when the server closes. */
const CLOSE_MS = 5000;

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

interface Connection {
  channel: DescriptorChannel;
  session: { shutdown(): void } | undefined;
}

/** See the module. */
export class Listener {
  readonly #reactor: Reactor;
  readonly #pool: SlotPool;
  readonly #options: ListenerOptions;
  readonly #wire: WireServer | undefined;
  readonly #acceptor: Acceptor;
  readonly #connections = new Set<Connection>();
  #drained: PromiseWithResolvers<void> | undefined;

  /** Begins to accept. */
  constructor(reactor: Reactor, pool: SlotPool, options: ListenerOptions) {
    this.#reactor = reactor;
    this.#pool = pool;
    this.#options = options;
    if (options.protocol === "telemap") this.#wire = wireServer(options);
    this.#acceptor = new Acceptor(reactor, options.fd, (fd) => this.#serve(fd));
  }

  /** Accepts no more, answers what is in hand, then drops the connections that are left. */
  async close(): Promise<void> {
    this.#acceptor.close();
    if (this.#connections.size === 0) return;
    this.#drained = Promise.withResolvers();
    for (const { session, channel } of [...this.#connections]) {
      if (session === undefined) channel.close();
      else session.shutdown();
    }
    const deadline = this.#reactor.addDeadline(performance.now() + CLOSE_MS, () => this.#drop());
    await this.#drained.promise;
    this.#reactor.cancelDeadline(deadline);
  }

  #drop(): void {
    for (const { channel } of [...this.#connections]) channel.close();
  }

  #serve(fd: number): void {
    if (this.#connections.size >= this.#options.maxConnections) return close(fd);
    let channel: DescriptorChannel;
    try {
      setNoDelay(fd);
      setSendBuffer(fd, SEND_BUFFER);
      channel = new DescriptorChannel(this.#reactor, this.#pool, fd);
    } catch {
      // There is no memory for it: those who are connected go on.
      return close(fd);
    }
    const connection: Connection = { channel, session: undefined };
    this.#connections.add(connection);
    channel.attach(this.#protocol(connection), () => this.#forget(connection));
    channel.flush();
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

  #forget(connection: Connection): void {
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#drained?.resolve();
  }
}

function wireServer({ offers, token, handshakeMs }: ListenerOptions): WireServer {
  return new WireServer({
    lookup: (asked) => {
      const offer = offers.find(({ name }) => name === asked) ?? (asked === "" && offers[0]);
      return offer ? { ...offer, ...offer.identity } : undefined;
    },
    token,
    helloMs: handshakeMs,
  });
}
