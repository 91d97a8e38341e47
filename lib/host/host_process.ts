/**
 * The entry of a process that hosts a backend for another one (see `process_link.ts`):
 *
 *     deno run --allow-all host_process.ts SOCKET
 *
 * It takes commands from its standard input, hands them to a host Worker, and ends with them: when
 * the other process is gone, what was written through the device is flushed first.
 *
 * @module
 */
import { close } from "../../ffi/file.ts";
import { connectUnix } from "../../ffi/socket.ts";
import { receiveDescriptors } from "../../ffi/socket_message.ts";
import { decodeFrames, encodeFrame } from "./process_frames.ts";
import type { BackendFacts, HostCommand, HostMessage } from "./protocol.ts";
import { packError } from "./remote_error.ts";
import { WorkerLink } from "./worker_link.ts";

/** How long to go on for the kernel, which writes back what a process that died had mapped. */
const WRITE_BACK_MS = 10_000;
/** How long to try to flush then. */
const FLUSH_MS = 30_000;

/** One Worker, and the process that it works for. */
class HostProcess {
  readonly #link = new WorkerLink();
  readonly #socket: number;
  readonly #answers = Deno.stdout.writable.getWriter();
  /** Descriptors as they are called there, by what they are called here. */
  readonly #names = new Map<number, number>();
  readonly #idle = Promise.withResolvers<void>();
  #closed = false;

  constructor(socket: number) {
    this.#socket = socket;
    this.#link.onLocal = (from, to) => this.#say({ event: "local", from, to });
    this.#link.onOutward = (outward, line) => this.#say({ event: "outward", outward, line });
    this.#link.onAsk = (ask, what, rate) => this.#say({ event: "ask", ask, what, rate });
    this.#link.onSeeder = (stage) => this.#say({ event: "seeder", stage });
    this.#link.onClient = (fd, client) =>
      this.#say({ event: "client", fd: this.#names.get(fd)!, client });
    this.#link.onDetached = (fd, error) => {
      const packed = error === undefined ? undefined : packError(error);
      this.#say({ event: "detached", fd: this.#names.get(fd)!, error: packed });
      this.#names.delete(fd);
      if (this.#names.size === 0) this.#idle.resolve();
    };
    this.#link.onEnd = (error) => {
      if (this.#closed) return;
      console.error(error.message);
      Deno.exit(1);
    };
  }

  /** Obeys until there are no more commands. */
  async run(commands: AsyncIterable<unknown>): Promise<void> {
    this.#say({ id: 0 });
    for await (const command of commands) void this.#obey(command as HostCommand);
    await this.#close();
    close(this.#socket);
  }

  async #obey(command: HostCommand): Promise<void> {
    const { id } = command;
    try {
      const here = "fd" in command ? { ...command, fd: this.#take(command.fd) } : command;
      this.#closed ||= command.command === "close";
      const { facts, ...answer } = await this.#link.call(here);
      this.#say({ id, ...answer, ...(facts && { facts: reachable(facts) }) });
    } catch (error) {
      // A Worker that could not open its backend has ended.
      this.#closed ||= command.command === "open";
      this.#say({ id, error: packError(error) });
    }
  }

  /** The descriptor that was sent ahead of the command which calls it `there`. */
  #take(there: number): number {
    const { descriptors: [here] } = receiveDescriptors(this.#socket, new Uint8Array(1), 1);
    this.#names.set(here!, there);
    return here!;
  }

  #say(message: HostMessage): void {
    // Where nobody hears it any more, the end of the commands tells.
    this.#answers.write(encodeFrame(message)).catch(() => {});
  }

  async #close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      if (this.#names.size > 0) await this.#whenUnused();
      await this.#link.call({ command: "close", flushMs: FLUSH_MS }).catch((error: Error) => {
        console.error(`Cannot close a region whose program is gone: ${error.message}`);
      });
    }
    this.#link.terminate();
  }

  /** Answers when the devices of the process that is gone are, too. */
  async #whenUnused(): Promise<void> {
    const timer = setTimeout(this.#idle.resolve, WRITE_BACK_MS);
    await this.#idle.promise;
    clearTimeout(timer);
  }
}

/** What is known of a backend, but for bytes in the memory of this process. */
function reachable(facts: BackendFacts): BackendFacts {
  return facts.shared?.kind === "memory" ? { ...facts, shared: undefined } : facts;
}

if (import.meta.main) {
  // Ctrl-C of a terminal is for the other process, which ends this one.
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => {});
  await new HostProcess(connectUnix(Deno.args[0]!)).run(decodeFrames(Deno.stdin.readable));
  Deno.exit();
}
