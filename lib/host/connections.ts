/**
 * The connections that a Worker serves for one listener or dialler, and how they end together.
 *
 * @module
 */
import { close } from "../../ffi/file.ts";
import { setKeepAlive, setNoDelay, setSendBuffer } from "../../ffi/socket.ts";
import type { Protocol } from "../net/channel.ts";
import { DescriptorChannel } from "../net/descriptor_channel.ts";
import type { Reactor } from "../net/reactor.ts";
import type { SlotPool } from "../net/slot_pool.ts";

/** The kernel's default for Unix sockets, 208 KiB, cuts a large reply into many writes. */
const SEND_BUFFER = 4 << 20;
/** How long clients may take to read what was answered when they are all closed. */
const CLOSE_MS = 5000;

/** One of them. */
export interface Connection {
  /** What it is served through. */
  channel: DescriptorChannel;
  /** Who answers what is in hand before the end; nobody before there is anything to answer. */
  session: { shutdown(): void } | undefined;
}

/** See the module. */
export class Connections {
  readonly #reactor: Reactor;
  readonly #pool: SlotPool;
  readonly #open = new Set<Connection>();
  #drained: PromiseWithResolvers<void> | undefined;

  /** Serves in a reactor. */
  constructor(reactor: Reactor, pool: SlotPool) {
    this.#reactor = reactor;
    this.#pool = pool;
  }

  /** How many there are. */
  get count(): number {
    return this.#open.size;
  }

  /**
   * Serves a connected socket, which is closed at the end, by a protocol; `onGone` is called then.
   * Where there is no memory for one more, the socket is closed at once, and those who are connected
   * go on.
   */
  serve(
    fd: number,
    protocol: (connection: Connection) => Protocol,
    onGone: () => void = () => {},
  ): void {
    let channel: DescriptorChannel;
    try {
      setNoDelay(fd);
      setKeepAlive(fd);
      setSendBuffer(fd, SEND_BUFFER);
      channel = new DescriptorChannel(this.#reactor, this.#pool, fd);
    } catch {
      close(fd);
      return onGone();
    }
    const connection: Connection = { channel, session: undefined };
    this.#open.add(connection);
    channel.attach(protocol(connection), () => {
      this.#forget(connection);
      onGone();
    });
    channel.flush();
  }

  /** Answers what is in hand, then drops the connections that are left. */
  async close(): Promise<void> {
    if (this.#open.size === 0) return;
    this.#drained = Promise.withResolvers();
    for (const { session, channel } of [...this.#open]) {
      if (session === undefined) channel.close();
      else session.shutdown();
    }
    const deadline = this.#reactor.addDeadline(performance.now() + CLOSE_MS, () => this.#drop());
    await this.#drained.promise;
    this.#reactor.cancelDeadline(deadline);
  }

  #drop(): void {
    for (const { channel } of [...this.#open]) channel.close();
  }

  #forget(connection: Connection): void {
    this.#open.delete(connection);
    if (this.#open.size === 0) this.#drained?.resolve();
  }
}
