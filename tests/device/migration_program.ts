/**
 * A program for tests whose region moves while it counts: page after page, for ever, gets the number
 * of the step that wrote it. It prints a line of JSON for each thing that happens.
 *
 *     deno run -A migration_program.ts seed BACKEND LISTEN DEVICE [--hold]
 *     deno run -A migration_program.ts leech SOURCE CACHE DEVICE STRATEGY,CONFIRM
 *         [--pull-rate N] [--kept STEP] [--hold]
 *
 * `--kept`: the region was there before its program crashed, and has kept that step. `--hold`: it waits
 * for something on standard input once the program is suspended for the first time, or the region was
 * taken over.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { type Confirm, Leecher, type Mount, Seeder, type Strategy } from "../../mod.ts";
import { finalizeInTime } from "./finalize_in_time.ts";
import { leftAfterCrash, PAGE, stepOf } from "./migration_pages.ts";

/** Steps that are made where the region came to, before it is enough. */
const STEPS_THERE = 50;
/** Without one nobody may listen beyond his host. */
const TOKEN = "of the test";
/** Steps between turns of the event loop. */
const STEPS_A_TURN = 10;

type Form = { as: "file"; device: "fuse" } | { as: "slice"; device: "userfault" };

function say(event: string, more: Record<string, unknown> = {}): void {
  console.log(JSON.stringify({ event, ...more }));
}

/** Counts in a mounted region until it is told to stop. */
class Counter {
  step: number;
  readonly #mount: Mount;
  readonly #form: Form;
  readonly #page = new Uint8Array(PAGE);
  readonly #view = new DataView(this.#page.buffer);
  #running = { stopped: true };
  #over: Promise<void> = Promise.resolve();

  /**
   * Goes on from the step that was the last. What was not flushed when its program crashed is made
   * anew then, all but the step that was `kept`; what was handed over has to be whole.
   */
  static async start(mount: Mount, form: Form, kept?: number): Promise<Counter> {
    const content = form.as === "slice" ? mount.bytes : await readAll(mount);
    if (kept === undefined) return new Counter(mount, form, stepOf(content));
    const { step, missing } = leftAfterCrash(content, kept);
    const counter = new Counter(mount, form, step);
    for (const step of missing) await counter.#write(step);
    return counter;
  }

  private constructor(mount: Mount, form: Form, step: number) {
    this.#mount = mount;
    this.#form = form;
    this.step = step;
  }

  /** Counts until {@linkcode stop}, or so many steps. */
  go(steps = Infinity): Promise<void> {
    const running = this.#running = { stopped: false };
    // A suspension that is late is told to go on before it was over.
    return this.#over = this.#over.then(() => this.#run(running, this.step + steps));
  }

  async stop(): Promise<void> {
    this.#running.stopped = true;
    await this.#over;
  }

  async #run(running: { stopped: boolean }, end: number): Promise<void> {
    while (!running.stopped && this.step < end) {
      const step = this.step + 1;
      await this.#write(step);
      this.step = step;
      if (step % STEPS_A_TURN === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  /** As the region was given away: what is there is written once more, which has to fail. */
  async writeInVain(): Promise<void> {
    try {
      await this.#write(this.step);
      await this.#mount.sync();
      say("written after all");
    } catch {
      say("fenced");
    }
  }

  async #write(step: number): Promise<void> {
    const offset = step * PAGE % this.#mount.size;
    this.#view.setUint32(0, step, true);
    if (this.#form.as === "slice") return this.#mount.bytes.set(this.#page, offset);
    await this.#mount.file.seek(offset, Deno.SeekMode.Start);
    await this.#mount.file.write(this.#page);
  }
}

async function readAll({ file, size }: Mount): Promise<Uint8Array> {
  const content = new Uint8Array(size);
  await file.seek(0, Deno.SeekMode.Start);
  for (let done = 0; done < size;) done += (await file.read(content.subarray(done)))!;
  return content;
}

/** Answers when there is something on standard input. */
async function toldToGoOn(): Promise<void> {
  await Deno.stdin.read(new Uint8Array(16));
}

async function seed(backend: string, listen: string, form: Form, holds: boolean): Promise<void> {
  let counter: Counter | undefined;
  const seeder = await Seeder.open({
    ...{ backend, listen, ...form, chunkSize: 16384, token: TOKEN },
    hooks: {
      onSuspend: async () => {
        await counter!.stop();
        say("suspended", { step: counter!.step });
        if (!holds) return;
        holds = false;
        await toldToGoOn();
      },
      onResume: () => {
        say("resumed");
        void counter!.go();
      },
      onStage: (stage) => {
        say("stage", { stage });
        if (stage === "given" && form.as === "file") void counter?.writeInVain();
      },
    },
  });
  if (seeder.stage === "serving") {
    counter = await Counter.start(seeder.mount, form, form.as === "slice" ? 0 : undefined);
    say("ready", { step: counter.step });
    void counter.go();
  } else say("ready");
  await seeder.released;
  await seeder.close();
  say("closed");
}

async function leech(
  source: string,
  local: string,
  form: Form,
  { strategy, confirm }: { strategy: Strategy; confirm: Confirm },
  { pullRate, kept, holds }: {
    pullRate: number | undefined;
    kept: number | undefined;
    holds: boolean;
  },
): Promise<void> {
  const leecher = await Leecher.open({
    ...{ source, local, ...form, token: TOKEN },
    ...(pullRate !== undefined && { pullRate }),
  });
  say("following");
  Deno.addSignalListener("SIGTERM", async () => {
    await leecher.close();
    say("cancelled");
    Deno.exit();
  });
  const maxTime = strategy === "force" ? 50 : 20_000;
  // Where it is copied slowly, all of it is written anew meanwhile.
  const maxDowntime = pullRate === undefined ? 500 : 3000;
  const goal = { strategy, confirm, maxTime, maxDowntime };
  const mount = await finalizeInTime(500, (suspendMs) => {
    return leecher.finalize({ ...goal, suspendMs });
  });
  say("taken", { ...await leecher.progress() });
  if (holds) await toldToGoOn();
  const counter = await Counter.start(mount, form, kept);
  say("owner", { ...await leecher.progress(), step: kept ?? counter.step });
  await counter.go(STEPS_THERE);
  await mount.sync();
  say("synced", { step: counter.step });
  await leecher.completed();
  await leecher.close();
  say("complete", { step: counter.step });
}

const { _: [mode, from, to, device, goal], ...options } = parseArgs(Deno.args, {
  string: ["_", "pull-rate", "kept"],
  boolean: ["hold"],
});
const form: Form = device === "fuse"
  ? { as: "file", device: "fuse" }
  : { as: "slice", device: "userfault" };
if (mode === "seed") await seed(`${from}`, `${to}`, form, options.hold === true);
else {
  const [strategy, confirm] = `${goal}`.split(",") as [Strategy, Confirm];
  const [pullRate, kept] = [options["pull-rate"], options.kept]
    .map((value) => value === undefined ? undefined : Number(value));
  await leech(`${from}`, `${to}`, form, { strategy, confirm }, {
    pullRate,
    kept,
    holds: options.hold === true,
  });
}
