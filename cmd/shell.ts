/**
 * Runs the shell commands that users give for the moments when their program is to stop and to go on.
 *
 * @module
 */
import { TelemapError } from "../mod.ts";

/** A command that was asked to end is killed after so long. */
const KILL_MS = 2000;

/** The commands of `--suspend` and `--resume`, of which only one runs at a time. */
export class ProgramCommands implements AsyncDisposable {
  readonly #suspend: string | undefined;
  readonly #resume: string | undefined;
  /** The suspension that goes on. */
  #suspending: { child: Deno.ChildProcess; ended: Promise<unknown> } | undefined;

  /** Runs nothing yet; a command that is missing is taken as done. */
  constructor(suspend: string | undefined, resume: string | undefined) {
    this.#suspend = suspend;
    this.#resume = resume;
  }

  /** Throws {@linkcode TelemapError} where the command fails, as one that was ended does. */
  async suspend(): Promise<void> {
    if (this.#suspend === undefined) return;
    await this.endSuspension();
    const child = start(this.#suspend);
    const suspending = this.#suspending = { child, ended: child.status };
    try {
      await outcome(child, "--suspend", this.#suspend);
    } finally {
      if (this.#suspending === suspending) this.#suspending = undefined;
    }
  }

  /** Ends a suspension that took too long, before the program is told to go on. */
  async resume(): Promise<void> {
    await this.endSuspension();
    if (this.#resume !== undefined) await outcome(start(this.#resume), "--resume", this.#resume);
  }

  /** Has a suspension end that nobody waits for any more: it must not stop the program later. */
  async endSuspension(): Promise<void> {
    if (this.#suspending === undefined) return;
    const { child: { pid }, ended } = this.#suspending;
    signalGroup(pid, "SIGTERM");
    const timer = setTimeout(() => signalGroup(pid, "SIGKILL"), KILL_MS);
    try {
      await ended;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Leaves no command behind. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.endSuspension();
  }
}

/** In a process group of its own, so that it can be ended with all that it runs. */
function start(command: string): Deno.ChildProcess {
  return new Deno.Command("sh", {
    // Standard output is for events.
    args: ["-c", `exec >&2\n${command}`],
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
    detached: true,
  }).spawn();
}

async function outcome(child: Deno.ChildProcess, option: string, command: string): Promise<void> {
  const { code, signal } = await child.status;
  if (code === 0) return;
  const how = signal === null ? `with code ${code}` : `by ${signal}`;
  throw new TelemapError("EIO", `The command of ${option} ended ${how}: ${command}`);
}

function signalGroup(leader: number, signal: Deno.Signal): void {
  try {
    Deno.kill(-leader, signal);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
