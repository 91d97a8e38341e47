/**
 * Runs `handover_holder.ts` in a process of its own, until it is killed.
 *
 * @module
 */
import { TextLineStream } from "@std/streams";

const PROGRAM = new URL("./handover_holder.ts", import.meta.url).pathname;

type Line = Record<string, unknown>;

/** A process that has the record of a region. */
export class HandoverHolder implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #lines: ReadableStreamDefaultReader<string>;
  readonly #errors: Promise<string>;
  #url = "";

  /** Answers once it has the record; throws what it says where it ends before. */
  static async start(...args: string[]): Promise<HandoverHolder> {
    const holder = new HandoverHolder(args);
    try {
      holder.#url = `${(await holder.next("ready"))["url"]}`;
      return holder;
    } catch (error) {
      await holder[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor(args: string[]) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-check", "--allow-all", PROGRAM, ...args],
      ...{ stdin: "null", stdout: "piped", stderr: "piped" },
    }).spawn();
    this.#lines = this.#child.stdout.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream()).getReader();
    this.#errors = new Response(this.#child.stderr).text();
  }

  /** Its process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** Where leechers reach it, if it seeds. */
  get url(): string {
    return this.#url;
  }

  /** The next event of that name. Throws, with what it said, where it ended. */
  async next(name: string): Promise<Line> {
    for (;;) {
      const { value, done } = await this.#lines.read();
      if (done) throw new Error(`It ended: ${await this.#errors}`);
      const line = JSON.parse(value) as Line;
      if (line["event"] === name) return line;
    }
  }

  /** Kills it. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#lines.cancel();
    await Promise.all([this.#child.status, this.#errors]);
  }
}
