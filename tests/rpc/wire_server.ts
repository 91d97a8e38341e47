/**
 * A server of the native wire in this isolate, over sockets of Deno, whose exports, identity and
 * end are in the hands of a test.
 *
 * @module
 */
import type { Backend } from "../../lib/backend/backend.ts";
import { StreamChannel } from "../../lib/net/stream_channel.ts";
import type { Controller, WireExport } from "../../lib/rpc/export.ts";
import { WireServer, type WireServerOptions } from "../../lib/rpc/server.ts";
import type { WireSession } from "../../lib/rpc/session.ts";

/** How {@linkcode TestWireServer.start} serves. */
export interface TestWireServerOptions extends Partial<Omit<WireServerOptions, "lookup">> {
  /** What is served, under any name. */
  backend: Backend;
  /** As in {@linkcode WireExport}; the same for all servers unless told. */
  region?: Uint8Array;
  /** As in {@linkcode WireExport}; the same for all servers unless told. */
  instance?: Uint8Array;
  /** Refuse writes. */
  readOnly?: boolean;
  /** As in {@linkcode WireExport}. */
  control?: Controller;
  /** Listen here instead of on a port of the loopback. */
  socket?: string;
  /** Of the loopback; a free one unless told. */
  port?: number;
}

/** See the module. Its end drops its connections; the backend stays open. */
export class TestWireServer implements AsyncDisposable {
  /** Where it listens. */
  readonly url: string;
  /** Connections that were made so far. */
  accepted = 0;
  readonly #listener: Deno.Listener;
  readonly #server: WireServer;
  readonly #connections = new Set<Deno.Conn>();
  readonly #sessions = new Set<WireSession>();
  readonly #running: Promise<void>[] = [];

  /** Begins to listen. */
  static start(options: TestWireServerOptions): TestWireServer {
    return new TestWireServer(options);
  }

  private constructor(options: TestWireServerOptions) {
    const { backend, readOnly = false, socket, port = 0, control, ...rest } = options;
    const { region = new Uint8Array(16), instance = new Uint8Array(16) } = options;
    const target: WireExport = { backend, readOnly, region, instance, control };
    this.#server = new WireServer({
      ...rest,
      lookup: (name) => name === "none" ? undefined : target,
    });
    if (socket === undefined) {
      const listener = Deno.listen({ hostname: "127.0.0.1", port });
      this.url = `telemap://127.0.0.1:${listener.addr.port}`;
      this.#listener = listener;
    } else {
      this.#listener = Deno.listen({ transport: "unix", path: socket });
      this.url = `telemap+unix:///?socket=${socket}`;
    }
    this.#running.push(this.#accept());
  }

  /** Drops every connection, without a word. */
  drop(): void {
    for (const conn of this.#connections) closeQuietly(conn);
    this.#connections.clear();
  }

  /** Has every session answer what is in hand, and close. */
  shutdown(): void {
    for (const session of this.#sessions) session.shutdown();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.drop();
    await Promise.all(this.#running);
  }

  async #accept(): Promise<void> {
    try {
      for await (const conn of this.#listener) {
        this.accepted++;
        this.#running.push(this.#serve(conn));
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
  }

  async #serve(conn: Deno.Conn): Promise<void> {
    this.#connections.add(conn);
    const channel = new StreamChannel(conn);
    const session = this.#server.accept(channel);
    this.#sessions.add(session);
    await channel.run(session);
    this.#sessions.delete(session);
    if (this.#connections.delete(conn)) closeQuietly(conn);
  }
}

/** Closes what its stream may have closed already. */
function closeQuietly(conn: Deno.Conn): void {
  try {
    conn.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BadResource)) throw error;
  }
}
