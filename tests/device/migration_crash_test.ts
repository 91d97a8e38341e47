/**
 * Regions that move while a program counts in them and either side is killed at random, gives up, or
 * has its connections cut: in the end every page holds what it should, one side alone may write, and
 * the count went on.
 *
 * `TELEMAP_MIGRATION_RUNS` sets how many runs, `TELEMAP_SEED` the seed of the first.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { FencedError, openBackend } from "../../mod.ts";
import { requires, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";
import { stepOf } from "./migration_pages.ts";
import { freePort } from "../free_port.ts";
import { HarmfulProxy } from "../rpc/harmful_proxy.ts";
import { Side } from "./migration_side.ts";
import { makeRandom, runSeeds } from "./random.ts";

openLibc();

const RUNS = Number(Deno.env.get("TELEMAP_MIGRATION_RUNS") ?? 6);
const SIZE = 4 << 20;
/** Ms within which something happens. */
const HAPPENS_WITHIN_MS = 500;
const TRIES = 6;
/** What may happen to an attempt. */
const FAULTS = ["none", "kill seeder", "kill leecher", "kill owner", "cancel", "cut"] as const;
/** Ms within which the new owner is killed. */
const OWNED_FOR_MS = 50;
/** Events with a step that no crash undoes: with the region comes what was written to it before. */
const KEPT = ["owner", "synced", "complete"];
const needs = requires("root", "/dev/fuse", "/dev/userfaultfd");

async function run(seed: number): Promise<string> {
  // Neighbours are far apart then.
  const random = makeRandom(Math.imul(seed, 0x9e37_79b1) >>> 0);
  using directory = temporaryDirectory();
  const region = `${directory.path}/region`, copy = `${directory.path}/copy`;
  const listen = `telemap://127.0.0.1:${freePort()}`;
  const device = random(2) === 0 ? "fuse" : "userfault";
  const happened: string[] = [];
  let reached = 0, handed = 0, isCut = false, wasThere = false;
  await using proxy = HarmfulProxy.start(listen, () => isCut ? 0 : undefined);
  for (let attempt = 1; attempt <= TRIES; attempt++) {
    if (await isOwned(copy)) {
      // It had moved already when it was killed.
      await checkMoved(region, copy, reached);
      return `${device}, ${happened.join(", ")}, step ${reached} or later`;
    }
    const strategy = ["wait", "force", "throttle"][random(3)]!;
    const confirm = ["auto", "ahead", "after"][random(3)]!;
    await using seeder = new Side(["seed", `file:${region}?size=${SIZE}`, listen, device]);
    assert(await seeder.saw("ready"), JSON.stringify(seeder.events));
    await using leecher: Side = new Side([
      ...["leech", proxy.url, `file:${copy}`, device, `${strategy},${confirm}`],
      ...(wasThere ? ["--kept", `${reached}`] : []),
    ]);
    // The last attempt may end as it likes.
    const fault = attempt === TRIES ? "none" : FAULTS[random(FAULTS.length)]!;
    happened.push(fault);
    if (fault === "kill owner") await leecher.saw("owner");
    const within = fault === "kill owner" ? OWNED_FOR_MS : HAPPENS_WITHIN_MS;
    const timer = setTimeout(() => {
      if (fault === "kill owner") leecher.kill();
      if (fault === "kill seeder") seeder.kill();
      if (fault === "kill leecher") leecher.kill();
      if (fault === "cancel") leecher.kill("SIGTERM");
      if (fault !== "cut") return;
      isCut = true;
      restoring = setTimeout(() => isCut = false, random(HAPPENS_WITHIN_MS));
    }, random(within));
    let restoring: ReturnType<typeof setTimeout> | undefined;
    const mayGoOn = fault === "none" || fault === "cut";
    await (mayGoOn ? leecher.over : Promise.race([leecher.over, seeder.over]));
    clearTimeout(timer);
    clearTimeout(restoring);
    isCut = false;
    handed = seeder.lastStep(["suspended"]) ?? handed;
    const owned = leecher.lastStep(["owner"]);
    if (owned !== undefined && !wasThere) assertEquals(owned, handed, "All that was written came");
    wasThere ||= owned !== undefined;
    reached = Math.max(reached, leecher.lastStep(KEPT) ?? 0);
    if (leecher.has("complete")) {
      await seeder.over;
      await checkMoved(region, copy, reached);
      return `${device}, ${happened.join(", ")}, step ${reached}`;
    }
    if (fault === "none") throw new Error(JSON.stringify([seeder.events, leecher.events]));
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
