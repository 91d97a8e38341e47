/**
 * Accepts connections of one listening socket in a reactor, and serves each by the protocol that
 * is spoken there.
 *
 * @module
 */
import { EPOLL } from "../../ffi/epoll.ts";
import { ERRNO, errno } from "../../ffi/errno.ts";
import { close, setNonblocking } from "../../ffi/file.ts";
import { accept, setNoDelay, setSendBuffer } from "../../ffi/socket.ts";
import type { NbdExport } from "../nbd/export.ts";
import { NbdNegotiation } from "../nbd/negotiation.ts";
import type { NbdSession } from "../nbd/session.ts";
import type { Protocol } from "../net/channel.ts";
import { DescriptorChannel } from "../net/descriptor_channel.ts";
import type { Deadline, Reactor } from "../net/reactor.ts";
import type { SlotPool } from "../net/slot_pool.ts";
import { WireServer } from "../rpc/server.ts";
import type { ExportOptions, ListenOptions, ListenProtocol } from "./protocol.ts";

/** The kernel's default for Unix sockets, 208 KiB, cuts a large reply into many writes. */
const SEND_BUFFER = 4 << 20;
/** How long clients may take to read what was answered when the server closes. */
const CLOSE_MS = 5000;
/** How long to leave a full backlog alone when no descriptor is free for a connection. */
const RETRY_MS = 100;

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
  readonly #connections = new Set<Connection>();
  #retry: Deadline | undefined;
  #drained: PromiseWithResolvers<void> | undefined;

  /** Begins to accept. */
  constructor(reactor: Reactor, pool: SlotPool, options: ListenerOptions) {
    this.#reactor = reactor;
    this.#pool = pool;
    this.#options = options;
    if (options.protocol === "telemap") this.#wire = wireServer(options);
    setNonblocking(options.fd);
    reactor.add(options.fd, EPOLL.IN, () => this.#accept());
  }

  /** Accepts no more, answers what is in hand, then drops the connections that are left. */
  async close(): Promise<void> {
    if (this.#retry === undefined) this.#reactor.remove(this.#options.fd);
    else this.#reactor.cancelDeadline(this.#retry);
    close(this.#options.fd);
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

  #accept(): void {
    while (true) {
      const fd = accept(this.#options.fd);
      if (fd >= 0) this.#serve(fd);
      else if (errno() === ERRNO.EAGAIN) return;
      else if (errno() !== ERRNO.ECONNABORTED && errno() !== ERRNO.EINTR) return this.#pause();
    }
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

  /** Descriptors or memory ran out: trying on would spin. */
  #pause(): void {
    this.#reactor.remove(this.#options.fd);
    this.#retry = this.#reactor.addDeadline(performance.now() + RETRY_MS, () => {
      this.#retry = undefined;
      this.#reactor.add(this.#options.fd, EPOLL.IN, () => this.#accept());
    });
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
