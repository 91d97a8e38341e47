/**
 * Runs the real command line in processes of its own, for tests.
 *
 * @module
 */
import { TextLineStream } from "@std/streams";

const PROGRAM = new URL("../cmd/telemap.ts", import.meta.url).pathname;

function command(args: string[], env: Record<string, string> = {}): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-check", "--allow-all", PROGRAM, ...args],
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** What a command came to. */
export interface Outcome {
  /** Its exit code. */
  code: number;
  /** Its standard output, without white space at the end. */
  out: string;
  /** Its standard error, likewise. */
  err: string;
}

/** Runs a command to its end. */
export async function telemap(args: string[], env?: Record<string, string>): Promise<Outcome> {
  const { code, stdout, stderr } = await command(args, env).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes).trimEnd());
  return { code, out: out!, err: err! };
}

/** A line that a command prints with `--json`. */
export type Event = Record<string, unknown>;

/** A command that runs until it is stopped; it is killed when this is disposed of. */
export class TelemapProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #lines: ReadableStreamDefaultReader<string>;
  readonly #errors: Promise<string>;
  #heard = "";
  #silent = false;
  #more = Promise.withResolvers<void>();

  /** Starts it; `--json` is to be among the arguments. */
  constructor(args: string[], env?: Record<string, string>) {
    this.#child = command(args, env).spawn();
    this.#lines = this.#child.stdout
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream())
      .getReader();
    this.#errors = this.#hear();
  }

  /** Its process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** The next event. Throws, with what it said on standard error, where it ended. */
  async next(): Promise<Event> {
    const { value, done } = await this.#lines.read();
    if (done) throw new Error(`telemap ended: ${await this.#errors}`);
    return JSON.parse(value) as Event;
  }

  /**
   * Waits until it said this on standard error, and answers all that it said there until then. Throws,
   * with that, where it ended before.
   */
  async said(text: string): Promise<string> {
    while (!this.#heard.includes(text)) {
      if (this.#silent) throw new Error(`telemap ended without ${text}: ${this.#heard}`);
      await this.#more.promise;
    }
    return this.#heard;
  }

  async #hear(): Promise<string> {
    for await (const text of this.#child.stderr.pipeThrough(new TextDecoderStream())) {
      this.#heard += text;
      this.#tell();
    }
    this.#silent = true;
    this.#tell();
    return this.#heard;
  }

  #tell(): void {
    this.#more.resolve();
    this.#more = Promise.withResolvers();
  }

  /** Sends a signal; to a process that has ended already, none. */
  kill(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
  }

  /** Waits for its end, and answers the events until then beside the {@linkcode Outcome}. */
  async end(): Promise<{ code: number; events: Event[]; err: string }> {
    const events: Event[] = [];
    for (;;) {
      const { value, done } = await this.#lines.read();
      if (done) break;
      events.push(JSON.parse(value) as Event);
    }
    const { code } = await this.#child.status;
    return { code, events, err: (await this.#errors).trimEnd() };
  }

  /** Kills it where it still runs. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    await this.end();
  }
}

/** The next event of that name. */
export async function nextOf(process: TelemapProcess, name: string): Promise<Event> {
  for (;;) {
    const event = await process.next();
    if (event["event"] === name) return event;
  }
}
