/**
 * Connections between a test and an NBD server in its isolate, over streams in memory or over a
 * socket pair: the test decides which bytes arrive together, and when replies are taken.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { EPOLL, EventFd } from "../../ffi/epoll.ts";
import { ERRNO, errno } from "../../ffi/errno.ts";
import { close, Iovec } from "../../ffi/file.ts";
import { Mapping } from "../../ffi/mman.ts";
import { readv, socketpair, writev } from "../../ffi/socket.ts";
import { NbdNegotiation, type NegotiationOptions } from "../../lib/nbd/negotiation.ts";
import { DescriptorChannel } from "../../lib/net/descriptor_channel.ts";
import { Reactor } from "../../lib/net/reactor.ts";
import { SlotPool } from "../../lib/net/slot_pool.ts";
import { StreamChannel } from "../../lib/net/stream_channel.ts";

/** The test's end of a connection. */
export abstract class Wire {
  /** Bytes that came so far, those that were taken included. */
  receivedBytes = 0;
  /** Whether the server closed the connection. */
  closed = false;
  readonly #chunks: Uint8Array<ArrayBuffer>[] = [];
  #available = 0;
  #changed = Promise.withResolvers<void>();

  /** Bytes that were sent and that the server did not take yet. */
  abstract get unsentBytes(): number;
  /** Sends bytes, in one piece. */
  abstract send(bytes: Uint8Array): void;
  /** Hangs up, without a word. */
  abstract hangUp(): void;
  /** Takes what the server sends, or leaves it where it is. */
  abstract listen(listens: boolean): void;

  /** The next `count` bytes. Throws where the server closes the connection before. */
  async take(count: number): Promise<Uint8Array<ArrayBuffer>> {
    while (this.#available < count) {
      if (this.closed) throw new Error(`The server closed; ${this.#available} of ${count} came`);
      await this.#changed.promise;
    }
    const bytes = new Uint8Array(count);
    for (let at = 0; at < count;) {
      const chunk = this.#chunks[0]!;
      const part = chunk.subarray(0, count - at);
      bytes.set(part, at);
      at += part.length;
      if (part.length === chunk.length) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(part.length);
    }
    this.#available -= count;
    return bytes;
  }

  /** All that comes until the server closes the connection. */
  async takeAll(): Promise<Uint8Array<ArrayBuffer>> {
    while (!this.closed) await this.#changed.promise;
    return this.take(this.#available);
  }

  /** Answers when the server closed the connection. */
  async ended(): Promise<void> {
    while (!this.closed) await this.#changed.promise;
  }

  /** Bytes came. */
  protected received(bytes: Uint8Array<ArrayBuffer>): void {
    this.#chunks.push(bytes);
    this.#available += bytes.length;
    this.receivedBytes += bytes.length;
    this.#signal();
  }

  /** The server closed. */
  protected end(): void {
    this.closed = true;
    this.#signal();
  }

  #signal(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

/** A server that a test connects to. */
export interface TestServer extends AsyncDisposable {
  /** A new connection. */
  connect(): Wire;
}

/** How a {@linkcode TestServer} is. */
export type TestServerOptions = Omit<NegotiationOptions, "handshakeMs"> & { handshakeMs?: number };

/** The ways to connect. */
export const SERVERS: Record<string, (options: TestServerOptions) => TestServer> = {
  "a stream": (options) => new StreamServer({ handshakeMs: 60_000, ...options }),
  "a socket": (options) => new SocketServer({ handshakeMs: 60_000, ...options }),
};

class StreamServer implements TestServer {
  readonly #options: NegotiationOptions;
  readonly #connections: { wire: StreamWire; over: Promise<void> }[] = [];

  constructor(options: NegotiationOptions) {
    this.#options = options;
  }

  connect(): Wire {
    const wire = new StreamWire();
    const channel = new StreamChannel(wire);
    const over = channel.run(new NbdNegotiation(channel, this.#options));
    this.#connections.push({ wire, over });
    return wire;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { wire, over } of this.#connections) {
      wire.listen(true);
      wire.hangUp();
      await over;
    }
  }
}

class StreamWire extends Wire {
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly writable: WritableStream<Uint8Array<ArrayBuffer>>;
  #controller!: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;
  #over = false;
  #listening = Promise.resolve();
  #listen = () => {};

  constructor() {
    super();
    const strategy = { highWaterMark: 0, size: (chunk: Uint8Array<ArrayBuffer>) => chunk.length };
    this.readable = new ReadableStream({
      start: (controller) => void (this.#controller = controller),
      cancel: () => void (this.#over = true),
    }, strategy);
    this.writable = new WritableStream({
      write: async (chunk) => {
        await this.#listening;
        this.received(chunk.slice());
      },
      close: () => this.end(),
      abort: () => this.end(),
    });
  }

  get unsentBytes(): number {
    return -(this.#controller.desiredSize ?? 0);
  }

  send(bytes: Uint8Array): void {
    if (!this.#over) this.#controller.enqueue(bytes.slice());
  }

  hangUp(): void {
    if (this.#over) return;
    this.#over = true;
    this.#controller.close();
  }

  listen(listens: boolean): void {
    this.#listen();
    if (!listens) this.#listening = new Promise((resolve) => this.#listen = resolve);
  }
}

class SocketServer implements TestServer {
  readonly #options: NegotiationOptions;
  readonly #wake = new EventFd();
  readonly #reactor = new Reactor(this.#wake);
  readonly #pool = new SlotPool();
  readonly #running = this.#reactor.run();
  readonly #wires: SocketWire[] = [];
  #open = 0;
  #idle: () => void = () => {};

  constructor(options: NegotiationOptions) {
    this.#options = options;
  }

  connect(): Wire {
    const [here, there] = socketpair();
    const channel = new DescriptorChannel(this.#reactor, this.#pool, there);
    this.#open++;
    channel.attach(new NbdNegotiation(channel, this.#options), () => {
      if (--this.#open === 0) this.#idle();
    });
    channel.flush();
    const wire = new SocketWire(this.#reactor, here);
    this.#wires.push(wire);
    return wire;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const wire of this.#wires) wire.hangUp();
    if (this.#open > 0) await new Promise<void>((resolve) => this.#idle = resolve);
    this.#reactor.stop();
    await this.#running;
    // What the backend still had in hand is answered by now, or soon.
    for (let turn = 0; turn < 1000 && this.#pool.lent > 0; turn++) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    assertEquals(this.#pool.lent, 0, "All buffers are given back");
    this.#reactor[Symbol.dispose]();
    this.#pool[Symbol.dispose]();
    this.#wake[Symbol.dispose]();
  }
}

class SocketWire extends Wire {
  readonly #reactor: Reactor;
  readonly #fd: number;
  readonly #buffer = Mapping.map({ length: 1 << 20 });
  readonly #iovec = new Iovec(1);
  readonly #unsent: Uint8Array[] = [];
  #listens = true;
  #gone = false;

  constructor(reactor: Reactor, fd: number) {
    super();
    this.#reactor = reactor;
    this.#fd = fd;
    reactor.add(fd, EPOLL.IN, (events) => this.#ready(events));
  }

  get unsentBytes(): number {
    return this.#unsent.reduce((sum, bytes) => sum + bytes.length, 0);
  }

  send(bytes: Uint8Array): void {
    if (this.#gone) return;
    this.#unsent.push(bytes.slice());
    this.#write();
  }

  hangUp(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#reactor.remove(this.#fd);
    close(this.#fd);
    this.#buffer.unmap();
    this.end();
  }

  listen(listens: boolean): void {
    this.#listens = listens;
    this.#watch();
  }

  #ready(events: number): void {
    if ((events & EPOLL.OUT) !== 0) this.#write();
    if (!this.#listens) return;
    this.#iovec.set(0, this.#buffer.address, this.#buffer.length);
    const count = readv(this.#fd, this.#iovec, 1);
    if (count > 0) return this.received(this.#buffer.bytes.slice(0, count));
    if (count < 0 && errno() === ERRNO.EAGAIN) return;
    this.hangUp();
  }

  #write(): void {
    while (this.#unsent.length > 0) {
      const part = this.#unsent[0]!.subarray(0, this.#buffer.length);
      // Never between a read and its copy, so that one buffer serves both ways.
      this.#buffer.bytes.set(part);
      this.#iovec.set(0, this.#buffer.address, part.length);
      const count = writev(this.#fd, this.#iovec, 1);
      if (count < 0) break;
      const left = this.#unsent[0]!.subarray(count);
      if (left.length > 0) this.#unsent[0] = left;
      else this.#unsent.shift();
    }
    this.#watch();
  }

  #watch(): void {
    if (this.#gone) return;
    const events = (this.#listens ? EPOLL.IN : 0) | (this.#unsent.length > 0 ? EPOLL.OUT : 0);
    this.#reactor.modify(this.#fd, events);
  }
}
