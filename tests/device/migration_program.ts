/**
 * A program for tests whose region moves while it counts: page after page, for ever, gets the number
 * of the step that wrote it. It prints a line of JSON for each thing that happens.
 *
 *     deno run -A migration_program.ts seed BACKEND LISTEN DEVICE
 *     deno run -A migration_program.ts leech SOURCE CACHE DEVICE STRATEGY,CONFIRM [PULL_RATE]
 *
 * @module
 */
import { type Confirm, Leecher, type Mount, Seeder, type Strategy } from "../../mod.ts";
import { finalizeInTime } from "./finalize_in_time.ts";
import { mendPages, PAGE, stepOf } from "./migration_pages.ts";

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
  #stopped = false;
  #over: Promise<void> = Promise.resolve();

  /**
   * Goes on from the step that was the last. What was in memory alone died with its program, which
   * `begins` anew then with what there is; whatever was handed over has to be whole.
   */
  static async start(mount: Mount, form: Form, { begins = false } = {}): Promise<Counter> {
    if (form.as === "slice") {
      const step = begins ? mendPages(mount.bytes) : stepOf(mount.bytes);
      return new Counter(mount, form, step);
    }
    const content = new Uint8Array(mount.size);
    await mount.file.seek(0, Deno.SeekMode.Start);
    for (let done = 0; done < content.length;) {
      done += (await mount.file.read(content.subarray(done)))!;
    }
    return new Counter(mount, form, stepOf(content));
  }

  private constructor(mount: Mount, form: Form, step: number) {
    this.#mount = mount;
    this.#form = form;
    this.step = step;
  }

  /** Counts until {@linkcode stop}, or so many steps. */
  go(steps = Infinity): Promise<void> {
    this.#stopped = false;
    return this.#over = this.#run(this.step + steps);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#over;
  }

  async #run(end: number): Promise<void> {
    const page = new Uint8Array(PAGE), view = new DataView(page.buffer);
    while (!this.#stopped && this.step < end) {
      const step = this.step + 1;
      view.setUint32(0, step, true);
      const offset = step * PAGE % this.#mount.size;
      if (this.#form.as === "slice") this.#mount.bytes.set(page, offset);
      else {
        await this.#mount.file.seek(offset, Deno.SeekMode.Start);
        await this.#mount.file.write(page);
      }
      this.step = step;
      if (step % STEPS_A_TURN === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
}

async function seed(backend: string, listen: string, form: Form): Promise<void> {
  let counter: Counter | undefined;
  const seeder = await Seeder.open({
    ...{ backend, listen, ...form, chunkSize: 16384, token: TOKEN },
    hooks: {
      onSuspend: async () => {
        await counter!.stop();
        say("suspended", { step: counter!.step });
      },
      onResume: () => {
        say("resumed");
        void counter!.go();
      },
      onStage: (stage) => say("stage", { stage }),
    },
  });
  if (seeder.stage === "serving") {
    counter = await Counter.start(seeder.mount, form, { begins: true });
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
  pullRate: number | undefined,
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
  say("owner", { ...await leecher.progress() });
  const counter = await Counter.start(mount, form);
  await counter.go(STEPS_THERE);
  await mount.sync();
  say("synced", { step: counter.step });
  await leecher.completed();
  await leecher.close();
  say("complete", { step: counter.step });
}

const [mode, from, to, device, goal, rate] = Deno.args as [
  ...[mode: string, from: string, to: string, device: string, goal: string],
  rate?: string,
];
const form: Form = device === "fuse"
  ? { as: "file", device: "fuse" }
  : { as: "slice", device: "userfault" };
if (mode === "seed") await seed(from, to, form);
else {
  const [strategy, confirm] = goal.split(",") as [Strategy, Confirm];
  await leech(from, to, form, { strategy, confirm }, rate ? Number(rate) : undefined);
}
