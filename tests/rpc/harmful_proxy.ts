/**
 * A proxy that does harm to what goes through it: it changes bytes, cuts connections, or holds them
 * up, where a test tells it to.
 *
 * @module
 */

/** Bytes on their way. */
export interface Passage {
  /** What goes by; may be changed in place. */
  bytes: Uint8Array;
  /** Bytes that went the same way on this connection before. */
  position: number;
  /** To the server or to the client. */
  direction: "up" | "down";
  /** Which connection, from 0. */
  connection: number;
}

/**
 * What to do: pass the bytes on as they are by now (`undefined`), pass only the first so many of
 * them and then cut the connection (a number), or wait before going on (a promise).
 */
export type Harm = (passage: Passage) => undefined | number | Promise<void>;

/** See the module. */
export class HarmfulProxy implements AsyncDisposable {
  /** Where it listens, as a `telemap://` URL. */
  readonly url: string;
  /** Connections that were made so far. */
  accepted = 0;
  readonly #port: number;
  readonly #harm: Harm;
  readonly #listener: Deno.TcpListener;
  readonly #open = new Set<Deno.Conn>();
  readonly #running: Promise<void>[] = [];

  /** Listens, and passes everything on to the server at a `telemap://` URL. */
  static start(url: string, harm: Harm): HarmfulProxy {
    return new HarmfulProxy(Number(new URL(url).port), harm);
  }

  private constructor(port: number, harm: Harm) {
    this.#port = port;
    this.#harm = harm;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.url = `telemap://127.0.0.1:${this.#listener.addr.port}`;
    this.#running.push(this.#accept());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const conn of [...this.#open]) this.#close(conn);
    await Promise.all(this.#running);
  }

  async #accept(): Promise<void> {
    try {
      for await (const client of this.#listener) this.#running.push(this.#join(client));
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
  }

  async #join(client: Deno.Conn): Promise<void> {
    const connection = this.accepted++;
    this.#open.add(client);
    try {
      const server = await Deno.connect({ hostname: "127.0.0.1", port: this.#port });
      this.#open.add(server);
      await Promise.all([
        this.#pass(client, server, "up", connection),
        this.#pass(server, client, "down", connection),
      ]);
    } catch (error) {
      if (!isAway(error)) throw error;
      this.#close(client);
    }
  }

  async #pass(
    from: Deno.Conn,
    to: Deno.Conn,
    direction: "up" | "down",
    connection: number,
  ): Promise<void> {
    const buffer = new Uint8Array(64 << 10);
    let position = 0;
    try {
      for (let count = await from.read(buffer); count !== null; count = await from.read(buffer)) {
        const harm = this.#harm({
          bytes: buffer.subarray(0, count),
          position,
          direction,
          connection,
        });
        if (harm instanceof Promise) await harm;
        const passed = typeof harm === "number" ? harm : count;
        for (let done = 0; done < passed;) done += await to.write(buffer.subarray(done, passed));
        if (typeof harm === "number") break;
        position += count;
      }
    } catch {
      // Whichever end went first takes the other one with it.
    }
    this.#close(from);
    this.#close(to);
  }

  #close(conn: Deno.Conn): void {
    if (this.#open.delete(conn)) conn.close();
  }
}

/** Whether there is no server: it is gone, or was killed at that moment. */
function isAway(error: unknown): boolean {
  return error instanceof Deno.errors.ConnectionRefused ||
    error instanceof Deno.errors.ConnectionReset;
}
