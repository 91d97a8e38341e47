/**
 * A side of a migration, as a process of its own: `migration_program.ts` or the like, and the events
 * it prints.
 *
 * @module
 */
import { TextLineStream } from "@std/streams";

const PROGRAM = import.meta.resolve("./migration_program.ts");
/** The option of a program that waits to be told to go on. */
export const HOLD = "--hold";
/** A side that still runs after so long hangs, in ms. */
const HANGS_AFTER_MS = 180_000;

/** One of the two sides, as a process. */
export class Side implements AsyncDisposable {
  /** What it printed, in order. */
  readonly events: Record<string, unknown>[] = [];
  /** Settles when it has ended. */
  readonly over: Promise<void>;
  /** Whether it has ended. */
  isOver = false;
  readonly #child: Deno.ChildProcess;
  readonly #hanging: ReturnType<typeof setTimeout>;
  readonly #waiting = new Map<string, PromiseWithResolvers<void>>();

  /** Runs it with those arguments, in a network namespace if told. */
  constructor(args: string[], namespace?: string, program = PROGRAM) {
    const run = ["run", "--quiet", "--no-check", "--allow-all", program, ...args];
    const within = namespace === undefined ? [] : ["ip", "netns", "exec", namespace];
    const [command = "", ...rest] = [...within, Deno.execPath(), ...run];
    this.#child = new Deno.Command(command, {
      args: rest,
      stdin: args.includes(HOLD) ? "piped" : "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#hanging = setTimeout(() => this.#endHanging(), HANGS_AFTER_MS);
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

  /** Has it go on where it was told to {@linkcode HOLD}. */
  async goOn(): Promise<void> {
    const writer = this.#child.stdin.getWriter();
    await writer.write(new TextEncoder().encode("go on\n"));
    await writer.close();
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
    clearTimeout(this.#hanging);
    const said = await errors;
    this.isOver = true;
    if (said !== "") this.events.push({ event: "said", said });
  }

  /** Whoever waits for it goes on, and finds among its events what its threads were at. */
  #endHanging(): void {
    this.events.push({ event: "hangs", threads: threadsOf(this.#child.pid) });
    this.kill();
  }

  /** Kills it, and waits for its end. Throws where it hung. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.kill();
    await this.over;
    if (this.has("hangs")) throw new Error(JSON.stringify(this.events));
  }
}

/** The threads of a process: name, state, and where they wait in the kernel. */
function threadsOf(pid: number): string[] {
  const tasks = `/proc/${pid}/task`;
  return [...Deno.readDirSync(tasks)].map(({ name }) => {
    const read = (file: string) => Deno.readTextFileSync(`${tasks}/${name}/${file}`);
    try {
      const state = /^State:\s*(\S)/m.exec(read("status"))?.[1];
      return `${read("comm").trim()} ${state} ${read("wchan")} ${read("syscall").trim()}`;
    } catch (error) {
      // It has just ended.
      return `${name}: ${(error as Error).message}`;
    }
  });
}
