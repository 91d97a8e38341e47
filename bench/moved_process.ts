/**
 * The program that moves, in a process of its own, and the relay in front of it.
 *
 * @module
 */
import { TextLineStream } from "@std/streams";

/** What the program does. */
export interface MovedProgram {
  /** Bytes of its memory. */
  size: number;
  /** Bytes at its beginning that it writes. */
  workingSet: number;
  /** How much, in MiB a second. */
  rate: number;
  /** Milliseconds from here to it and back; there is no relay where that is 0. */
  rtt: number;
}

/** See the module. It is killed at the end. */
export class MovedProcess implements AsyncDisposable {
  /** Where its seeder is reached. */
  readonly url: string;
  readonly #program: Lines;
  readonly #relay: Lines | undefined;

  /** Answers when its memory is filled. */
  static async start({ size, workingSet, rate, rtt }: MovedProgram): Promise<MovedProcess> {
    const program = new Lines("moved_program.ts", [`${size}`, `${workingSet}`, `${rate}`]);
    const url = new URL(await program.next());
    if (rtt === 0) return new MovedProcess(url.href, program, undefined);
    const relay = new Lines("delayed_relay.ts", [url.host, `${rtt}`]);
    return new MovedProcess(`telemap://127.0.0.1:${await relay.next()}`, program, relay);
  }

  private constructor(url: string, program: Lines, relay: Lines | undefined) {
    this.url = url;
    this.#program = program;
    this.#relay = relay;
  }

  /** Has it do one of its commands; answers when it says that this is done. */
  async do(command: string): Promise<void> {
    await this.#program.ask(command);
  }

  /** What it answers to one of its commands. */
  async ask(command: string): Promise<number> {
    return Number(await this.#program.ask(command));
  }

  /** Kills both. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program[Symbol.asyncDispose]();
    await this.#relay?.[Symbol.asyncDispose]();
  }
}

/** A program of this folder that is talked to line by line; killed at the end. */
class Lines implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #output: ReadableStreamDefaultReader<string>;

  constructor(script: string, args: string[]) {
    const { pathname } = new URL(script, import.meta.url);
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "-A", pathname, ...args],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#output = this.#child.stdout.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream()).getReader();
  }

  async next(): Promise<string> {
    const { value } = await this.#output.read();
    if (value === undefined) throw new Error("A program of the benchmark ended");
    return value;
  }

  async ask(line: string): Promise<string> {
    await this.#input.write(new TextEncoder().encode(`${line}\n`));
    return await this.next();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.status;
    await this.#input.abort().catch(() => {});
    await this.#output.cancel().catch(() => {});
  }
}
