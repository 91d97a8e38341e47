/**
 * A command of telemap in a process of its own, for the demos.
 *
 * @module
 */
import { TextLineStream } from "@std/streams";

/** A command that runs; disposing of it stops that, and waits for its end. */
export class OwnProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #lines: ReadableStreamDefaultReader<string>;

  /** Starts a command with these arguments, `--json` among them. */
  constructor(args: readonly string[]) {
    const program = Deno.build.standalone
      ? []
      : ["run", "--quiet", "--allow-all", import.meta.resolve("./telemap.ts")];
    this.#child = new Deno.Command(Deno.execPath(), {
      args: [...program, ...args],
      ...{ stdin: "null", stdout: "piped", stderr: "inherit" } as const,
    }).spawn();
    this.#lines = this.#child.stdout
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream())
      .getReader();
  }

  /** Its process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** The next event that it prints; undefined where it ended. */
  async next<Event>(): Promise<Event | undefined> {
    const { value } = await this.#lines.read();
    return value === undefined ? undefined : JSON.parse(value) as Event;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGTERM");
    } catch (error) {
      // It has ended already.
      if (!(error instanceof TypeError)) throw error;
    }
    while (!(await this.#lines.read()).done);
    await this.#child.status;
  }
}
