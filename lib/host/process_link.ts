/**
 * A host Worker in a process of its own, for devices that this process maps.
 *
 * A thread that touches such a mapping may stop in the kernel with a lock on the address space of its
 * process: in a write to a page that is being written back, or in a second try to read one. Nobody in
 * that process can map or unmap memory then. So whoever has to answer for the thread to go on must
 * live elsewhere, as an isolate that runs maps memory all the time.
 *
 * Commands and answers go through pipes (`process_frames.ts`); descriptors through a Unix socket, one
 * before each command that has one.
 *
 * @module
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { close } from "../../ffi/file.ts";
import { accept, listenUnix, peerCredentials } from "../../ffi/socket.ts";
import { sendDescriptors } from "../../ffi/socket_message.ts";
import { ClosedError, ConnectionError, UnsupportedError } from "../backend/errors.ts";
import { HostLink } from "./host_link.ts";
import { configOf } from "./host_process_config.ts";
import { decodeFrames, encodeFrame } from "./process_frames.ts";
import type { HostCommand, HostMessage } from "./protocol.ts";

/** How long the process may take to start. */
const START_MS = 30_000;

/** See the module. */
export class ProcessLink extends HostLink {
  readonly #child: Deno.ChildProcess;
  readonly #commands: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #socket: number;
  /** Settles when the process is gone. */
  readonly #over: Promise<void>;

  /**
   * Starts it, with the configuration of the working directory.
   *
   * @throws {UnsupportedError} this program is one executable, which has no runtime to start.
   * @throws {ConnectionError} the process did not come up.
   */
  static async start(): Promise<ProcessLink> {
    if (Deno.build.standalone) {
      throw new UnsupportedError("Cannot map a device in a program that is one executable", {
        hint: "mount the slice by the userfault device, or run the program by deno run",
      });
    }
    const directory = mkdtempSync(`${tmpdir()}/telemap-host-`);
    const path = `${directory}/socket`;
    const listening = listenUnix(path);
    try {
      return await ProcessLink.#connect(path, listening);
    } finally {
      close(listening);
      rmSync(directory, { recursive: true });
    }
  }

  static async #connect(path: string, listening: number): Promise<ProcessLink> {
    const entry = new URL("./host_process.ts", import.meta.url).href;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-check", "--allow-all", ...configOf(Deno.cwd()), entry, path],
      // A session of its own: what a terminal sends to this one it must outlive, to write back.
      detached: true,
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const messages = decodeFrames(child.stdout);
    const timer = setTimeout(() => child.kill("SIGKILL"), START_MS);
    const { done } = await messages.next();
    clearTimeout(timer);
    if (done) {
      throw new ConnectionError("Cannot start the process that serves a mapped device", {
        hint: `run ${Deno.execPath()} run ${entry} to see why`,
      });
    }
    // It has connected before it said that it is there.
    const socket = accept(listening);
    if (peerCredentials(socket).pid === child.pid) return new ProcessLink(child, socket, messages);
    close(socket);
    child.kill("SIGKILL");
    throw new ConnectionError("Cannot use a host process whose place another process took");
  }

  private constructor(
    child: Deno.ChildProcess,
    socket: number,
    messages: AsyncGenerator<unknown>,
  ) {
    super();
    this.#child = child;
    this.#socket = socket;
    this.#commands = child.stdin.getWriter();
    this.#over = this.#receiveAll(messages);
  }

  /** As {@linkcode HostLink.terminate}. */
  override async terminate(): Promise<void> {
    this.#end(new ClosedError("The backend was closed"));
    await this.#over;
  }

  protected override post(command: HostCommand): void {
    if ("fd" in command && givesAway(command)) {
      sendDescriptors(this.#socket, new Uint8Array(1), [command.fd]);
      close(command.fd);
    }
    this.#commands.write(encodeFrame(command)).catch(() => {
      // The process is gone: the end of its answers tells.
    });
  }

  async #receiveAll(messages: AsyncGenerator<unknown>): Promise<void> {
    for await (const message of messages) this.receive(message as HostMessage);
    const { code, signal } = await this.#child.status;
    const how = signal === null ? `with code ${code}` : `by ${signal}`;
    this.#end(new ClosedError(`The process of a backend ended ${how}`));
  }

  #end(error: Error): void {
    if (!this.end(error)) return;
    close(this.#socket);
    // The end of its commands ends it, once it has closed what it has open.
    this.#commands.close().catch(() => {});
  }
}

/** Whether the descriptor of a command belongs to the host from then on. */
function givesAway({ command }: HostCommand): boolean {
  return command === "fuse" || command === "nbd" || command === "listen" ||
    command === "listen-userfault";
}
