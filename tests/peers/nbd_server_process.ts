/**
 * Runs the NBD servers of other projects, as peers to test against.
 *
 * @module
 */
import { assert } from "@std/assert";
import { dial } from "../../lib/net/dial.ts";
import { parseAddress } from "../../lib/net/address.ts";

/** A running server on a Unix socket. */
export class NbdServerProcess implements AsyncDisposable {
  /** Its address. */
  readonly url: string;
  readonly #command: string;
  readonly #args: string[];
  readonly #socket: string;
  #child: Deno.ChildProcess;

  private constructor(command: string, args: string[], socket: string) {
    this.#command = command;
    this.#args = args;
    this.#socket = socket;
    this.url = `nbd+unix:///?socket=${socket}`;
    this.#child = this.#spawn();
  }

  /** Runs nbdkit with a socket in `folder`. */
  static nbdkit(folder: string, ...args: string[]): Promise<NbdServerProcess> {
    const socket = `${folder}/nbdkit.sock`;
    return this.#start("nbdkit", ["--foreground", "--unix", socket, ...args], socket);
  }

  /** Runs qemu-nbd with a socket in `folder`. */
  static qemu(folder: string, ...args: string[]): Promise<NbdServerProcess> {
    const socket = `${folder}/qemu.sock`;
    return this.#start("qemu-nbd", ["--persistent", "--socket", socket, ...args], socket);
  }

  static async #start(
    command: string,
    args: string[],
    socket: string,
  ): Promise<NbdServerProcess> {
    const server = new NbdServerProcess(command, args, socket);
    try {
      await server.#ready();
      return server;
    } catch (error) {
      await server.kill();
      throw error;
    }
  }

  /** Ends it by SIGKILL. */
  async kill(): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It ended by itself.
    }
    await this.#child.status;
  }

  /** Answers when it has ended by itself. */
  async ended(): Promise<void> {
    await this.#child.status;
  }

  /** Runs it again, on the same socket with the same arguments. */
  async restart(): Promise<void> {
    await this.kill();
    await Deno.remove(this.#socket).catch(() => {});
    this.#child = this.#spawn();
    await this.#ready();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  #spawn(): Deno.ChildProcess {
    const options = { args: this.#args, stdin: "null", stdout: "null", stderr: "inherit" } as const;
    return new Deno.Command(this.#command, options).spawn();
  }

  /** Tries to connect until it takes a connection, for 10 seconds at most. */
  async #ready(): Promise<void> {
    const address = parseAddress(this.url);
    const start = performance.now();
    for (;;) {
      try {
        (await dial(address)).close();
        return;
      } catch (error) {
        assert(performance.now() - start < 10_000, `${this.#command} does not come up: ${error}`);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
  }
}
