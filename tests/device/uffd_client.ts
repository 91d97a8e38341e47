/**
 * The C program uffd_client.c, compiled and run as a client of a handler of page faults; and a Deno
 * program that is asked in the same way.
 *
 * @module
 */
import { assert } from "@std/assert";
import { TextLineStream } from "@std/streams";
import { requires, requiresAll, requiresThat } from "../requires.ts";
import { probeUserfault } from "../../ffi/userfault_open.ts";
import { shell } from "./command.ts";

const SOURCE = new URL("./uffd_client.c", import.meta.url).pathname;

/** What these clients need of the host. */
export const CLIENT_NEEDS = requiresAll(
  requires("root", "gcc", "/usr/include/stdio.h", "/usr/include/linux/userfaultfd.h"),
  requiresThat(probeUserfault().features !== 0, "userfaultfd is not permitted"),
);

/** Compiles the C client into a directory, and answers its path. */
export async function compileClient(directory: string): Promise<string> {
  const path = `${directory}/uffd_client`;
  await shell(`gcc -Wall -Wextra -Werror -O2 -pthread -o ${path} ${SOURCE}`);
  return path;
}

/** So long a client may take for an answer, in ms. */
const ANSWER_MS = 20_000;

/**
 * A process that answers each line with a line; what it says on standard error counts likewise. It is
 * killed when this is disposed of.
 */
export class LineProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #lines: ReadableStreamDefaultReader<string>;

  /** Starts it. */
  constructor(command: string, args: string[]) {
    this.#child = new Deno.Command("sh", {
      args: ["-c", 'exec "$@" 2>&1', "sh", command, ...args],
      stdin: "piped",
      stdout: "piped",
      env: { NO_COLOR: "1" },
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#lines = this.#child.stdout
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream())
      .getReader();
  }

  /** Its process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** Asks it, and waits for no answer. */
  async send(line: string): Promise<void> {
    await this.#input.write(new TextEncoder().encode(`${line}\n`));
  }

  /** The next line that it prints. Kills it, and throws, where none comes. */
  async next(): Promise<string> {
    let silent = false;
    const watchdog = setTimeout(() => {
      silent = true;
      this.#child.kill("SIGKILL");
    }, ANSWER_MS);
    const { value } = await this.#lines.read();
    clearTimeout(watchdog);
    assert(!silent, `the client said nothing for ${ANSWER_MS / 1000} s`);
    if (value === undefined) {
      const { code, signal } = await this.#child.status;
      throw new Error(`the client ended, by ${signal ?? `exit code ${code}`}`);
    }
    return value;
  }

  /** Asks it, and waits for the answer. */
  async ask(line: string): Promise<string> {
    await this.send(line);
    return await this.next();
  }

  /** Lets it end by itself, and answers how it did. */
  async end(): Promise<Deno.CommandStatus> {
    await this.#input.close().catch(() => {});
    return await this.#child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#child.status;
    await this.#input.close().catch(() => {});
    await this.#lines.cancel();
  }
}
