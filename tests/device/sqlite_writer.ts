/**
 * The real sqlite3 on a database, statement by statement, and what it acknowledged.
 *
 * @module
 */
import { TextLineStream } from "@std/streams";

/** One sqlite3 that is fed through a pipe. */
export class SqliteWriter implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: ReadableStreamDefaultReader<string>;
  readonly #errors: Promise<string>;

  /** Opens a database, which need not be there yet. */
  constructor(database: string) {
    // Its output is read line by line, while it goes on.
    this.#child = new Deno.Command("stdbuf", {
      args: ["--output=L", "sqlite3", "-batch", "-bail", database],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#lines = this.#child.stdout
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream())
      .getReader();
    this.#errors = new Response(this.#child.stderr).text();
  }

  /** Its process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** Has statements carried out, without waiting for them. */
  async send(statements: string): Promise<void> {
    await this.#input.write(new TextEncoder().encode(`${statements}\n`));
  }

  /** The next line that it prints. Throws, with what it said, where it ended. */
  async line(): Promise<string> {
    const { value, done } = await this.#lines.read();
    if (done) throw new Error(`sqlite3 ended: ${await this.#errors}`);
    return value;
  }

  /** Has statements carried out; answers the line that they print. */
  async run(statements: string): Promise<string> {
    await this.send(statements);
    return await this.line();
  }

  /** Lets it end; answers what it said on standard error. */
  async end(): Promise<string> {
    await this.#input.close().catch(() => {});
    await this.#child.status;
    await this.#lines.cancel();
    return (await this.#errors).trim();
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
