/**
 * A side of a migration, as a process of its own: `migration_program.ts` or the like, and the events
 * it prints.
 *
 * @module
 */
import { TextLineStream } from "@std/streams";

const PROGRAM = import.meta.resolve("./migration_program.ts");

/** One of the two sides, as a process. */
export class Side implements AsyncDisposable {
  /** What it printed, in order. */
  readonly events: Record<string, unknown>[] = [];
  /** Settles when it has ended. */
  readonly over: Promise<void>;
  readonly #child: Deno.ChildProcess;
  readonly #waiting = new Map<string, PromiseWithResolvers<void>>();

  /** Runs it with those arguments, in a network namespace if told. */
  constructor(args: string[], namespace?: string, program = PROGRAM) {
    const run = ["run", "--quiet", "--no-check", "--allow-all", program, ...args];
    const within = namespace === undefined ? [] : ["ip", "netns", "exec", namespace];
    const [command = "", ...rest] = [...within, Deno.execPath(), ...run];
    this.#child = new Deno.Command(command, {
      args: rest,
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.over = this.#read();
  }

  /** Answers whether an event of that name came before its end. */
  async saw(name: string): Promise<boolean> {
    if (!this.has(name)) {
      const waiting = Promise.withResolvers<void>();
      this.#waiting.set(name, waiting);
      await Promise.race([waiting.promise, this.over]);
    }
    return this.has(name);
  }

  /** Whether an event of that name came. */
  has(name: string): boolean {
    return this.events.some(({ event }) => event === name);
  }

  /** The step of the last event that has one. */
  get step(): number {
    return Number(this.events.findLast(({ step }) => step !== undefined)?.["step"] ?? 0);
  }

  /** The step that the last of its events by those names tells. */
  lastStep(names: readonly string[]): number | undefined {
    return this.events.findLast(({ event }) => names.some((name) => event === name))
      ?.["step"] as number | undefined;
  }

  /** Kills it, if it still runs; with SIGTERM a leecher gives up in order. */
  kill(signal: Deno.Signal = "SIGKILL"): void {
    try {
      this.#child.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
  }

  async #read(): Promise<void> {
    const errors = new Response(this.#child.stderr).text();
    const lines = this.#child.stdout.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream());
    for await (const line of lines) {
      const event = JSON.parse(line) as Record<string, unknown>;
      this.events.push(event);
      this.#waiting.get(`${event["event"]}`)?.resolve();
    }
    await this.#child.status;
    const said = await errors;
    if (said !== "") this.events.push({ event: "said", said });
  }

  /** Kills it, and waits for its end. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.kill();
    await this.over;
  }
}
