/**
 * Serves a client that this host dials, as the client cannot reach it: keeps some connections there
 * on which the client may ask whenever it likes, and replaces those that it takes or that break.
 *
 * ```text
 *            +-> connecting -> at its hello -> waiting -> taken by the client
 * too few ---+       |              |             |          |
 *    ^               +--------------+-------------+----------+-> gone
 *    +---------------------- after a while --------------------------+
 * ```
 *
 * @module
 */
import { EPOLL } from "../../ffi/epoll.ts";
import { SystemError } from "../../ffi/errno.ts";
import { close } from "../../ffi/file.ts";
import { connectTcp, connectUnix, takeError } from "../../ffi/socket.ts";
import {
  ConnectionError,
  DeadlineError,
  RemoteError,
  type TelemapError,
} from "../backend/errors.ts";
import { type Address, formatAddress } from "../net/address.ts";
import { notConnected, reachable, type ReachableTransport, resolveHost } from "../net/dial.ts";
import type { Deadline, Reactor } from "../net/reactor.ts";
import type { SlotPool } from "../net/slot_pool.ts";
import { DialledSession } from "../rpc/dialled_session.ts";
import type { WireServer } from "../rpc/server.ts";
import { Connections } from "./connections.ts";
import { type Offer, wireServer } from "./listener.ts";
import type { DialOptions } from "./protocol.ts";

/** What an {@linkcode Outward} needs beside the reactor. */
export interface OutwardOptions extends Pick<DialOptions, "token" | "waiting" | "handshakeMs"> {
  /** Where the client listens, and what it knows the region by. */
  address: Address;
  /** What is offered; the first one is the default export. */
  offers: readonly Offer[];
  /** Takes lines for people: the client cannot be reached, or can be again. */
  log: (line: string) => void;
}

/** Connections that a client is expected to use at a time: its lanes, and those they replace. */
const TAKEN_MOST = 8;
const BACKOFF_MS = { FIRST: 10, MOST: 5000 };
/** Whoever keeps a connection for so many ms means it. */
const KEPT_MS = 1000;

/** See the module. */
export class Outward {
  readonly #reactor: Reactor;
  readonly #options: OutwardOptions;
  readonly #url: string;
  readonly #transport: ReachableTransport;
  readonly #server: WireServer;
  readonly #connections: Connections;
  /** Gives up what is being connected. */
  readonly #attempts = new Set<() => void>();
  #greeting = 0;
  #waiting = 0;
  #taken = 0;
  #failures = 0;
  #retry: Deadline | undefined;
  /** Why the client was not reached, as it was said last; "" while it is. */
  #told = "";
  #closed = false;

  /** Begins to dial. Throws what `reachable` does. */
  constructor(reactor: Reactor, pool: SlotPool, options: OutwardOptions) {
    this.#reactor = reactor;
    this.#options = options;
    this.#url = formatAddress(options.address);
    this.#transport = reachable(options.address);
    this.#server = wireServer(options);
    this.#connections = new Connections(reactor, pool);
    this.#fill();
  }

  /** Dials no more, answers what is in hand, then drops the connections that are left. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#retry !== undefined) this.#reactor.cancelDeadline(this.#retry);
    for (const giveUp of [...this.#attempts]) giveUp();
    await this.#connections.close();
  }

  /** Dials for as many connections as are missing; one at a time while the client is away. */
  #fill(): void {
    if (this.#closed || this.#retry !== undefined) return;
    const { waiting } = this.#options;
    const wanted = this.#failures > 0 && this.#waiting === 0 ? 1 : waiting;
    const room = TAKEN_MOST + waiting - this.#taken;
    while (this.#untaken < Math.min(wanted, room) && this.#retry === undefined) this.#dial();
  }

  /** Connections that wait, or soon will. */
  get #untaken(): number {
    return this.#attempts.size + this.#greeting + this.#waiting;
  }

  #dial(): void {
    const { handshakeMs } = this.#options;
    let fd = -1;
    const over = () => {
      this.#attempts.delete(giveUp);
      this.#reactor.cancelDeadline(deadline);
    };
    const giveUp = () => {
      over();
      if (fd < 0) return;
      this.#reactor.remove(fd);
      close(fd);
    };
    const fail = (error: unknown) => {
      if (!this.#attempts.has(giveUp)) return;
      giveUp();
      this.#lost(notConnected(this.#url, error), 0);
    };
    const late = () =>
      fail(
        new DeadlineError(
          `Cannot connect to ${this.#url} as it did not answer within ${handshakeMs} ms`,
        ),
      );
    const deadline = this.#reactor.addDeadline(performance.now() + handshakeMs, late);
    this.#attempts.add(giveUp);
    const connected = () => {
      const failed = takeError(fd);
      if (failed !== 0) {
        return fail(new SystemError({ syscall: "connect", errno: failed, subject: this.#url }));
      }
      over();
      this.#reactor.remove(fd);
      this.#greet(fd);
    };
    const begin = (connect: () => number) => {
      if (!this.#attempts.has(giveUp)) return;
      try {
        fd = connect();
        this.#reactor.add(fd, EPOLL.OUT, connected);
      } catch (error) {
        fail(error);
      }
    };
    const transport = this.#transport;
    if (transport.kind === "unix") return begin(() => connectUnix(transport.path));
    this.#reactor.beginAsync();
    resolveHost(transport.host)
      .then((host) => begin(() => connectTcp(host, transport.port)), fail)
      .finally(() => this.#reactor.endAsync());
  }

  /** Says hello on a connection, and counts it for as long as there is one. */
  #greet(fd: number): void {
    const { address, token = "", handshakeMs } = this.#options;
    let keptAt = Infinity;
    let state: "greeting" | "waiting" | "taken" = "greeting";
    let reason: TelemapError | undefined;
    this.#greeting++;
    this.#connections.serve(fd, (connection) =>
      new DialledSession(connection.channel, {
        ...{ url: this.#url, helloMs: handshakeMs, server: this.#server },
        hello: { name: address.name, token },
        onKept: () => {
          keptAt = performance.now();
          state = "waiting";
          this.#greeting--;
          this.#waiting++;
          this.#reached();
        },
        onTaken: (session) => {
          connection.session = session;
          state = "taken";
          this.#waiting--;
          this.#taken++;
          this.#fill();
        },
        onGone: (why) => reason = why,
      }), () => {
      if (state === "greeting") this.#greeting--;
      else if (state === "waiting") this.#waiting--;
      else this.#taken--;
      const over = reason ?? new ConnectionError(`${this.#url} closed the connection`);
      this.#lost(over, performance.now() - keptAt);
    });
  }

  /** The client keeps a connection. */
  #reached(): void {
    if (this.#told !== "") this.#options.log(`Reached ${this.#url} again`);
    this.#told = "";
    this.#fill();
  }

  /** A connection is gone that the client kept for so many ms. */
  #lost(reason: TelemapError, keptMs: number): void {
    if (this.#closed) return;
    if (keptMs >= KEPT_MS) this.#failures = 0;
    const { message } = reason;
    // A client that is there and refuses will not change its mind by itself.
    const refused = reason instanceof RemoteError && this.#told !== message;
    if (this.#waiting + this.#taken === 0 && (this.#told === "" || refused)) {
      this.#told = message;
      this.#options.log(`No connection to ${this.#url}, dialling on: ${message}`);
    }
    if (this.#retry !== undefined) return;
    const most = Math.min(BACKOFF_MS.FIRST * 2 ** this.#failures++, BACKOFF_MS.MOST);
    const at = performance.now() + most * (0.5 + Math.random() / 2);
    this.#retry = this.#reactor.addDeadline(at, () => {
      this.#retry = undefined;
      this.#fill();
    });
  }
}
