/**
 * Regions that move while a program counts in them and either side is killed at random, gives up, or
 * has its connections cut: in the end every page holds what it should, one side alone may write, and
 * the count went on.
 *
 * `TELEMAP_MIGRATION_RUNS` sets how many runs, `TELEMAP_SEED` the seed of the first.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { pauseFor } from "../../lib/chunk/pause.ts";
import { FencedError, openBackend } from "../../mod.ts";
import { requires, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";
import { stepOf } from "./migration_pages.ts";
import { freePort } from "../free_port.ts";
import { HarmfulProxy } from "../rpc/harmful_proxy.ts";
import { Side } from "./migration_side.ts";
import { makeRandom, runSeeds } from "./random.ts";

openLibc();

const RUNS = Number(Deno.env.get("TELEMAP_MIGRATION_RUNS") ?? 10);
const SIZE = 4 << 20;
const TRIES = 8;
/** What may happen to an attempt. */
const FAULTS = ["kill seeder", "kill leecher", "cancel", "cut"] as const;
/** What it happens after, and within how many ms. */
const MOMENTS = [
  { side: "leecher", event: "following", within: 300 },
  { side: "seeder", event: "suspended", within: 20 },
  { side: "leecher", event: "taken", within: 10 },
  { side: "leecher", event: "owner", within: 50 },
] as const;
/** For how long connections may be cut, in ms. */
const CUT_MOST_MS = 500;
/** Events with a step that no crash undoes: with the region comes what was written to it before. */
const KEPT = ["owner", "synced", "complete"];
const needs = requires("root", "/dev/fuse", "/dev/userfaultfd");

/** The two sides of one run. Whoever lives on after an attempt is not always started anew. */
class Sides implements AsyncDisposable {
  #seeder: Side | undefined;
  #leecher: Side | undefined;

  /** The one that lives, or one that is started. */
  async seeder(start: () => Side): Promise<Side> {
    if (this.#seeder === undefined || this.#seeder.isOver) {
      await this.#seeder?.[Symbol.asyncDispose]();
      this.#seeder = start();
      assert(await this.#seeder.saw("ready"), JSON.stringify(this.#seeder.events));
    }
    return this.#seeder;
  }

  /** Likewise. */
  async leecher(start: () => Side): Promise<Side> {
    if (this.#leecher === undefined || this.#leecher.isOver) {
      await this.#leecher?.[Symbol.asyncDispose]();
      this.#leecher = start();
    }
    return this.#leecher;
  }

  /** Ends both of them. */
  async [Symbol.asyncDispose](): Promise<void> {
    const both = [this.#seeder, this.#leecher];
    this.#seeder = this.#leecher = undefined;
    for (const side of both) await side?.[Symbol.asyncDispose]();
  }
}

async function run(seed: number): Promise<string> {
  // Neighbours are far apart then.
  const random = makeRandom(Math.imul(seed, 0x9e37_79b1) >>> 0);
  const oneOf = <T>(list: readonly T[]) => list[random(list.length)]!;
  using directory = temporaryDirectory();
  const region = `${directory.path}/region`, copy = `${directory.path}/copy`;
  const listen = `telemap://127.0.0.1:${freePort()}`;
  const device = oneOf(["fuse", "userfault"]);
  const happened: string[] = [];
  let reached = 0, handed = 0, isCut = false, wasThere = false;
  await using proxy = HarmfulProxy.start(listen, () => isCut ? 0 : undefined);
  await using sides = new Sides();
  for (let attempt = 1; attempt <= TRIES; attempt++) {
    if (attempt > 1 && random(2) === 0) await sides[Symbol.asyncDispose]();
    const seeder = await sides.seeder(() => {
      return new Side(["seed", `file:${region}?size=${SIZE}`, listen, device]);
    });
    if (await isOwned(copy)) {
      // It had moved already when it was killed.
      await checkMoved(region, copy, reached);
      return `${device}, ${happened.join(", ")}, step ${reached} or later`;
    }
    // The last attempt may end as it likes.
    const isLast = attempt === TRIES;
    const strategy = oneOf(isLast ? ["wait"] : ["wait", "force", "throttle", "cancel"]);
    const confirm = oneOf(["auto", "ahead", "after"]);
    const leecher = await sides.leecher(() =>
      new Side([
        ...["leech", proxy.url, `file:${copy}`, device, `${strategy},${confirm}`],
        ...(wasThere ? ["--kept", `${reached}`] : []),
      ])
    );
    const fault = isLast || random(8) === 0 ? "none" : oneOf(FAULTS);
    const moment = oneOf(MOMENTS);
    happened.push(fault === "none" ? fault : `${fault} after ${moment.event}`);
    const over = new AbortController();
    const harm = async () => {
      if (fault === "none") return;
      const side = moment.side === "seeder" ? seeder : leecher;
      await Promise.race([side.saw(moment.event), leecher.over]);
      await pauseFor(random(moment.within), over.signal);
      if (over.signal.aborted) return;
      if (fault === "kill seeder") seeder.kill();
      if (fault === "kill leecher") leecher.kill();
      if (fault === "cancel") leecher.kill("SIGTERM");
      if (fault !== "cut") return;
      isCut = true;
      await pauseFor(random(CUT_MOST_MS), over.signal);
      isCut = false;
    };
    const harmed = harm();
    const mayGoOn = fault === "none" || fault === "cut";
    await (mayGoOn ? leecher.over : Promise.race([leecher.over, seeder.over]));
    over.abort();
    await harmed;
    isCut = false;
    assert(!seeder.has("written after all"), "The source was given away, and took a write");
    handed = seeder.lastStep(["suspended"]) ?? handed;
    const owned = leecher.lastStep(["owner"]);
    if (owned !== undefined && !wasThere) assertEquals(owned, handed, "All that was written came");
    if (leecher.has("taken")) {
      wasThere = true;
      reached = Math.max(reached, handed);
    }
    reached = Math.max(reached, leecher.lastStep(KEPT) ?? 0);
    if (leecher.has("complete")) {
      await seeder.over;
      await checkMoved(region, copy, reached);
      return `${device}, ${happened.join(", ")}, step ${reached}`;
    }
    // A program that is too fast for who gives up at once.
    if (fault === "none" && strategy !== "cancel") {
      throw new Error(JSON.stringify([seeder.events, leecher.events]));
    }
  }
  throw new Error(`It did not move in ${TRIES} attempts: ${happened.join(", ")}`);
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

/** The copy is the region now, and the source may be read alone. */
async function checkMoved(region: string, copy: string, reached: number): Promise<void> {
  const step = stepOf(await Deno.readFile(copy));
  assert(step >= reached, `step ${step} after ${reached} was promised to be kept`);
  await (await openBackend(`file:${copy}`)).close();
  await (await openBackend(`file:${region}?readonly`)).close();
  await assertRejects(() => openBackend(`file:${region}`), FencedError, "given away");
}

Deno.test({
  name: withReason(
    `a region moves ${RUNS} times while sides are killed, give up and are cut off`,
    needs,
  ),
  ignore: needs.ignore,
  fn: () => runSeeds(RUNS, run),
});
