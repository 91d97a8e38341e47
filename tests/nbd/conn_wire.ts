/**
 * A test's end of a connection to a server in a Worker or another process.
 *
 * @module
 */
import { dial } from "../../lib/net/dial.ts";
import { parseAddress } from "../../lib/net/address.ts";
import type { ByteConn } from "../../lib/net/reactor_conn.ts";
import { Wire } from "./wire.ts";

/** See the module. It takes what the server sends as it comes. */
export class ConnWire extends Wire {
  readonly #conn: ByteConn;
  readonly #receiving: Promise<void>;
  #unsent = Promise.resolve();
  #unsentBytes = 0;
  #gone = false;

  /** Connects to the server at an NBD URL. */
  static async connect(url: string): Promise<ConnWire> {
    return new ConnWire(await dial(parseAddress(url)));
  }

  private constructor(conn: ByteConn) {
    super();
    this.#conn = conn;
    this.#receiving = this.#receive();
  }

  get unsentBytes(): number {
    return this.#unsentBytes;
  }

  send(bytes: Uint8Array): void {
    const copy = bytes.slice();
    this.#unsentBytes += copy.length;
    this.#unsent = this.#unsent.then(() => this.#write(copy)).catch(() => {});
  }

  hangUp(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#conn.close();
  }

  listen(): void {
    throw new Error("Not here: the runtime decides what is taken");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.hangUp();
    await this.#receiving;
    await this.#unsent;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      const count = await this.#conn.write(bytes.subarray(at));
      at += count;
      this.#unsentBytes -= count;
    }
  }

  async #receive(): Promise<void> {
    try {
      while (true) {
        const buffer = new Uint8Array(1 << 16);
        const count = await this.#conn.read(buffer);
        if (count === null) break;
        this.received(buffer.subarray(0, count));
      }
    } catch {
      // Closed here, or reset there.
    }
    this.hangUp();
    this.end();
  }
}
