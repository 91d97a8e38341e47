/**
 * Servers that a benchmark starts, each in a process of its own, and ends.
 *
 * @module
 */
import { setTimeout as delay } from "node:timers/promises";
import { type Backend, openBackend } from "../mod.ts";

/** A process that is killed and waited for at the end. */
export class Peer implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;

  /** Starts a command. */
  constructor(command: string, args: string[]) {
    this.#child = new Deno.Command(command, {
      args,
      stdin: "null",
      stdout: "null",
      stderr: "inherit",
    }).spawn();
  }

  /** Bytes of memory that the process holds now (VmRSS of /proc/PID/status). */
  get residentBytes(): number {
    const status = Deno.readTextFileSync(`/proc/${this.#child.pid}/status`);
    return Number(/VmRSS:\s*(\d+) kB/.exec(status)?.[1]) * 1024;
  }

  /** Waits until a path exists that the process makes when it is ready. */
  async untilExists(path: string): Promise<this> {
    for (let tries = 0; tries < 1000; tries++) {
      try {
        Deno.lstatSync(path);
        return this;
      } catch {
        await delay(10);
      }
    }
    throw new Error(`${path} did not appear within 10 s`);
  }

  /** Ends the process. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGTERM");
    } catch {
      // It ended by itself.
    }
    await this.#child.status;
  }
}

const CLI = new URL("../cmd/telemap.ts", import.meta.url).pathname;

/** `telemap serve` of a backend at a URL. */
export function telemapServe(backend: string, listen: string): Peer {
  return new Peer(Deno.execPath(), ["run", "-A", CLI, "serve", backend, "--listen", listen]);
}

/** The URI of an NBD server on a Unix socket. */
export function nbdUri(socket: string): string {
  return `nbd+unix:///?socket=${socket}`;
}

/** A native address on loopback that nobody listens on. */
export function freeAddress(): string {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return `telemap://127.0.0.1:${listener.addr.port}`;
}

/** Opens the region of a server that was just started. */
export async function untilServed(url: string): Promise<Backend> {
  const deadline = performance.now() + 10_000;
  while (true) {
    try {
      return await openBackend(url);
    } catch (error) {
      if (performance.now() > deadline) throw error;
    }
  }
}

/** Whether a command is there. */
export async function hasCommand(name: string): Promise<boolean> {
  const { code } = await new Deno.Command("sh", {
    args: ["-c", `command -v ${name}`],
    stdout: "null",
  }).output();
  return code === 0;
}
