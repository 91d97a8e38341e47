/**
 * Regions that move while a program counts in them and either side is killed at random: in the end
 * every page holds what it should, one side alone may write, and the count went on.
 *
 * `TELEMAP_MIGRATION_RUNS` sets how many runs, `TELEMAP_SEED` the seed of the first.
 */
import { assert, assertRejects } from "@std/assert";
import { TextLineStream } from "@std/streams";
import { openLibc } from "../../ffi/libc.ts";
import { FencedError, openBackend } from "../../mod.ts";
import { requires, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";
import { stepOf } from "./migration_pages.ts";
import { makeRandom } from "./random.ts";

openLibc();

const RUNS = Number(Deno.env.get("TELEMAP_MIGRATION_RUNS") ?? 6);
const SIZE = 4 << 20;
/** Ms within which somebody is killed. */
const KILLED_WITHIN_MS = 500;
const TRIES = 6;
const PROGRAM = new URL("./migration_program.ts", import.meta.url).pathname;
const needs = requires("root", "/dev/fuse", "/dev/userfaultfd");

/** One of the two sides, as a process. */
class Side implements AsyncDisposable {
  readonly events: Record<string, unknown>[] = [];
  /** Settles when it has ended. */
  readonly over: Promise<void>;
  readonly #child: Deno.ChildProcess;
  readonly #waiting = new Map<string, PromiseWithResolvers<void>>();

  constructor(...args: string[]) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-check", "--allow-all", PROGRAM, ...args],
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

  has(name: string): boolean {
    return this.events.some(({ event }) => event === name);
  }

  /** The step of the last event that has one. */
  get step(): number {
    return Number(this.events.findLast(({ step }) => step !== undefined)?.["step"] ?? 0);
  }

  kill(): void {
    try {
      this.#child.kill("SIGKILL");
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

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill();
    await this.over;
  }
}

async function run(seed: number): Promise<string> {
  // Neighbours are far apart then.
  const random = makeRandom(Math.imul(seed, 0x9e37_79b1) >>> 0);
  using directory = temporaryDirectory();
  const region = `${directory.path}/region`, copy = `${directory.path}/copy`;
  const listen = `telemap+unix:///?socket=${directory.path}/socket`;
  const device = random(2) === 0 ? "fuse" : "userfault";
  let reached = 0, kills = 0;
  for (let attempt = 1; attempt <= TRIES; attempt++) {
    if (await isOwned(copy)) {
      // It had moved already when it was killed.
      await checkMoved(region, copy, reached);
      return `${device}, ${kills} killed, ${attempt - 1} attempts, step ${reached} or later`;
    }
    const strategy = random(2) === 0 ? "wait" : "force";
    await using seeder = new Side("seed", `file:${region}?size=${SIZE}`, listen, device);
    assert(await seeder.saw("ready"), JSON.stringify(seeder.events));
    await using leecher = new Side("leech", listen, `file:${copy}`, device, strategy);
    // The last attempt may end as it likes.
    const victim = attempt === TRIES ? undefined : [undefined, seeder, leecher][random(3)];
    const timer = setTimeout(() => victim?.kill(), random(KILLED_WITHIN_MS));
    const ended = victim === undefined ? undefined : victim.over;
    const complete = leecher.saw("complete");
    await Promise.race([complete, ...(ended === undefined ? [] : [ended])]);
    clearTimeout(timer);
    reached = Math.max(reached, ...[seeder, leecher].map(syncedStep));
    if (leecher.has("complete")) {
      await seeder.over;
      await checkMoved(region, copy, reached);
      return `${device}, ${kills} killed, ${attempt} attempts, step ${reached}`;
    }
    if (victim === undefined) throw new Error(JSON.stringify([seeder.events, leecher.events]));
    kills++;
  }
  throw new Error(`It did not move in ${TRIES} attempts`);
}

/** Whether the region can be opened there to be written. */
async function isOwned(copy: string): Promise<boolean> {
  try {
    await (await openBackend(`file:${copy}`)).close();
    return true;
  } catch {
    return false;
  }
}

/** The step that a side has promised to keep. */
function syncedStep({ events }: Side): number {
  const kept = events.filter(({ event }) => event === "synced" || event === "complete");
  return Number(kept.at(-1)?.["step"] ?? 0);
}

/** The copy is the region now, and the source may be read alone. */
async function checkMoved(region: string, copy: string, reached: number): Promise<void> {
  const step = stepOf(await Deno.readFile(copy));
  assert(step >= reached, `step ${step} after ${reached} was promised to be kept`);
  await (await openBackend(`file:${copy}`)).close();
  await (await openBackend(`file:${region}?readonly`)).close();
  await assertRejects(() => openBackend(`file:${region}`), FencedError, "given away");
}

Deno.test({
  name: withReason(`a region moves ${RUNS} times while either side is killed at random`, needs),
  ignore: needs.ignore,
  async fn() {
    const first = Number(
      Deno.env.get("TELEMAP_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0],
    );
    for (let seed = first; seed < first + RUNS; seed++) {
      console.log(`seed ${seed}: ${await run(seed)}`);
    }
  },
});
