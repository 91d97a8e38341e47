/**
 * Pages in the memory of other processes, in a reactor: each connects to a Unix socket and hands its
 * userfaultfd over. The connection stays open as the sign of life of both sides; neither says more.
 *
 * @module
 */
import { EPOLL } from "../../ffi/epoll.ts";
import { ERRNO, errno } from "../../ffi/errno.ts";
import { close } from "../../ffi/file.ts";
import { peerCredentials, recv, send } from "../../ffi/socket.ts";
import type { Backend } from "../backend/backend.ts";
import { Acceptor } from "../net/acceptor.ts";
import type { Reactor } from "../net/reactor.ts";
import type { SlotPool } from "../net/slot_pool.ts";
import { formatAnswer } from "./handoff_answer.ts";
import { type Handoff, HandoffReceiver } from "./handoff_receiver.ts";
import { UserfaultServer, type UserfaultServerOptions } from "./server.ts";
import type { UserfaultStatistics } from "./statistics.ts";

/** What happens to the clients of a {@linkcode UserfaultListener}. */
export type UserfaultClientEvent =
  /** The memory of a client is paged in from now on. */
  | {
    event: "attached";
    /** Counts the clients of this listener from 1. */
    client: number;
    /** Its process id; 0 where that cannot be seen from here. */
    pid: number;
    /** How many regions of memory. */
    regions: number;
    /** Their bytes. */
    bytes: number;
  }
  /** It is paged in no more; what the client touches then waits for another handler. */
  | {
    event: "detached";
    client: number;
    pid: number;
    /** Why, for people. */
    reason: string;
    statistics: UserfaultStatistics;
  }
  /** What a client sent was refused, and nothing paged in. */
  | { event: "refused"; pid: number; reason: string };

/** How the memory of clients is paged in. */
export interface UserfaultClientOptions
  extends Pick<UserfaultServerOptions, "faultAround" | "onLoss" | "lossMs"> {
  /** How long a client may take to hand its userfaultfd over, in ms. */
  handshakeMs: number;
  /** Clients at a time. */
  maxClients: number;
}

/** What a {@linkcode UserfaultListener} needs beside the backend. */
export interface UserfaultListenerOptions extends UserfaultClientOptions {
  /** The listening Unix socket; it is closed with the listener. */
  fd: number;
  /** Takes what happens. */
  onEvent(event: UserfaultClientEvent): void;
}

/** See the module. */
export class UserfaultListener {
  readonly #reactor: Reactor;
  readonly #pool: SlotPool;
  readonly #backend: Backend;
  readonly #options: UserfaultListenerOptions;
  readonly #acceptor: Acceptor;
  readonly #clients = new Set<Client>();
  #count = 0;

  /** Begins to accept. */
  constructor(
    reactor: Reactor,
    pool: SlotPool,
    backend: Backend,
    options: UserfaultListenerOptions,
  ) {
    this.#reactor = reactor;
    this.#pool = pool;
    this.#backend = backend;
    this.#options = options;
    this.#acceptor = new Acceptor(reactor, options.fd, (fd) => this.#welcome(fd));
  }

  /** Accepts no more, and lets all clients go, who learn it by the end of their connections. */
  close(): void {
    this.#acceptor.close();
    for (const client of [...this.#clients]) client.end("the handler was closed");
  }

  #welcome(fd: number): void {
    const { pid } = peerCredentials(fd);
    if (this.#clients.size >= this.#options.maxClients) {
      const reason = `there are ${this.#clients.size} clients already`;
      send(fd, formatAnswer({ answer: "refused", reason }));
      close(fd);
      return this.#options.onEvent({ event: "refused", pid, reason });
    }
    const client: Client = new Client(this.#reactor, fd, pid, {
      ...this.#options,
      backendSize: this.#backend.size,
      nextNumber: () => ++this.#count,
      serve: (handoff, onDetached) =>
        new UserfaultServer(this.#reactor, this.#pool, handoff.uffd, this.#backend, {
          regions: handoff.regions,
          faultAround: this.#options.faultAround,
          onLoss: this.#options.onLoss,
          lossMs: this.#options.lossMs,
          onDetached,
        }),
      onEnd: () => this.#clients.delete(client),
    });
    this.#clients.add(client);
  }
}

interface ClientOptions extends UserfaultListenerOptions {
  backendSize: number;
  /** The number of a client that is attached. */
  nextNumber(): number;
  /** Pages the memory in, and takes the userfaultfd over unless it throws. */
  serve(handoff: Handoff, onDetached: (error?: Error) => void): UserfaultServer;
  /** Called once, when it is gone. */
  onEnd(): void;
}

/** One client: first it hands over, then it is served until either side goes. */
class Client {
  readonly #reactor: Reactor;
  readonly #fd: number;
  readonly #pid: number;
  readonly #options: ClientOptions;
  readonly #receiver: HandoffReceiver;
  #number = 0;
  #server: UserfaultServer | undefined;
  #ended = false;

  constructor(reactor: Reactor, fd: number, pid: number, options: ClientOptions) {
    this.#reactor = reactor;
    this.#fd = fd;
    this.#pid = pid;
    this.#options = options;
    this.#receiver = new HandoffReceiver(reactor, fd, {
      backendSize: options.backendSize,
      handshakeMs: options.handshakeMs,
      onDone: (handoff) => {
        if (handoff instanceof Error) this.#refuse(handoff.message);
        else this.#attach(handoff);
      },
    });
  }

  /** Lets it go; whatever it touches from now on waits for another handler. */
  end(reason: string): void {
    if (this.#ended) return;
    if (this.#server === undefined) {
      this.#receiver.cancel();
      return this.#refuse(reason);
    }
    this.#ended = true;
    const { statistics } = this.#server;
    // First the userfaultfd, then the connection: its end tells that no fault is read here any more.
    this.#server.close();
    this.#reactor.remove(this.#fd);
    this.#close();
    const client = this.#number, pid = this.#pid;
    this.#options.onEvent({ event: "detached", client, pid, reason, statistics });
  }

  #attach(handoff: Handoff): void {
    try {
      this.#server = this.#options.serve(handoff, (error) => this.#detached(error));
    } catch (error) {
      close(handoff.uffd);
      return this.#refuse(error instanceof Error ? error.message : `${error}`);
    }
    this.#number = this.#options.nextNumber();
    send(this.#fd, formatAnswer({ answer: "attached" }));
    this.#reactor.add(this.#fd, EPOLL.IN | EPOLL.RDHUP, () => this.#heard());
    const bytes = handoff.regions.reduce((sum, { size }) => sum + size, 0);
    const client = this.#number, pid = this.#pid, regions = handoff.regions.length;
    this.#options.onEvent({ event: "attached", client, pid, regions, bytes });
  }

  #refuse(reason: string): void {
    this.#ended = true;
    send(this.#fd, formatAnswer({ answer: "refused", reason }));
    this.#close();
    this.#options.onEvent({ event: "refused", pid: this.#pid, reason });
  }

  /** The server ended by itself, as where the client's process is gone. */
  #detached(error: Error | undefined): void {
    if (error !== undefined) this.end(error.message);
  }

  #heard(): void {
    const count = recv(this.#fd, new Uint8Array(128));
    if (count > 0) this.end("it sent more than its description");
    else if (count === 0) this.end("its connection ended");
    else if (errno() !== ERRNO.EAGAIN && errno() !== ERRNO.EINTR) this.end("its connection broke");
  }

  #close(): void {
    close(this.#fd);
    this.#options.onEnd();
  }
}
