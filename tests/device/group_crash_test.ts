/**
 * Groups that move while a program counts in all of their parts and either side is killed at random: in
 * the end the parts are of one moment, one side alone may write, to all of them, and the count went on.
 *
 * `TELEMAP_MIGRATION_RUNS` sets how many runs, `TELEMAP_SEED` the seed of the first.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { decodeGroupHead } from "../../lib/migration/group_head.ts";
import { FencedError, openBackend } from "../../mod.ts";
import { freePort } from "../free_port.ts";
import { requires, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";
import { checkMoment } from "./group_counter.ts";
import { PAGE, stepOf } from "./migration_pages.ts";
import { Side } from "./migration_side.ts";
import { makeRandom, runSeeds } from "./random.ts";

openLibc();

const RUNS = Number(Deno.env.get("TELEMAP_MIGRATION_RUNS") ?? 6);
const PROGRAM = import.meta.resolve("./group_program.ts");
const NAMES = ["a", "b", "c"];
/** Ms within which something happens. */
const HAPPENS_WITHIN_MS = 500;
const TRIES = 6;
const FAULTS = ["none", "kill seeder", "kill leecher"] as const;
/** Events with a step that no crash undoes: with the group comes what was written to it before. */
const KEPT = ["owner", "synced", "complete"];
const needs = requires("root", "/dev/fuse");

async function run(seed: number): Promise<string> {
  const random = makeRandom(Math.imul(seed, 0x9e37_79b1) >>> 0);
  using directory = temporaryDirectory();
  const { path } = directory, copy = `${path}/copy`;
  const listen = `telemap://127.0.0.1:${freePort()}`;
  const parts = NAMES.map((name) =>
    `${name}=file:${path}/${name}?size=${(1 + random(400)) * PAGE}`
  );
  const happened: string[] = [];
  let reached = 0, handed = 0, wasThere = false;
  for (let attempt = 1; attempt <= TRIES; attempt++) {
    if (await mayWrite(copy)) {
      // It had moved already when it was killed.
      return `${happened.join(", ")}, step ${await checkMoved(path, reached)} or later`;
    }
    await using seeder = new Side(["seed", listen, ...parts], undefined, PROGRAM);
    assert(await seeder.saw("ready"), JSON.stringify(seeder.events));
    await using leecher: Side = new Side(
      [
        ...["leech", listen, `file:${copy}`],
        ...(wasThere ? [`${reached}`] : []),
      ],
      undefined,
      PROGRAM,
    );
    // The last attempt may end as it likes.
    const fault = attempt === TRIES ? "none" : FAULTS[random(FAULTS.length)]!;
    happened.push(fault);
    // Counted from where it begins to follow, so that much of it hits the handover.
    await leecher.saw("following");
    const timer = setTimeout(() => {
      if (fault === "kill seeder") seeder.kill();
      if (fault === "kill leecher") leecher.kill();
    }, random(HAPPENS_WITHIN_MS));
    await (fault === "none" ? leecher.over : Promise.race([leecher.over, seeder.over]));
    clearTimeout(timer);
    handed = seeder.lastStep(["suspended"]) ?? handed;
    const owned = leecher.lastStep(["owner"]);
    if (owned !== undefined && !wasThere) assertEquals(owned, handed, "All that was written came");
    wasThere ||= owned !== undefined;
    reached = Math.max(reached, leecher.lastStep(KEPT) ?? 0);
    if (leecher.has("complete")) {
      await seeder.over;
      return `${happened.join(", ")}, step ${await checkMoved(path, reached)}`;
    }
    if (fault === "none") throw new Error(JSON.stringify([seeder.events, leecher.events]));
    seeder.kill();
    leecher.kill();
    await Promise.all([seeder.over, leecher.over]);
    await checkOneSide(path);
  }
  throw new Error(`It did not move in ${TRIES} attempts: ${happened.join(", ")}`);
}

/** Whether a region can be opened there to be written. */
async function mayWrite(path: string): Promise<boolean> {
  try {
    await (await openBackend(`file:${path}`)).close();
    return true;
  } catch {
    return false;
  }
}

/** Of the parts and the copy of them, never both can be written, also while nobody runs. */
async function checkOneSide(path: string): Promise<void> {
  const isOwned = [];
  for (const name of NAMES) isOwned.push(await mayWrite(`${path}/${name}`));
  const isCopyOwned = await mayWrite(`${path}/copy`);
  assert(!(isCopyOwned && isOwned.includes(true)), `the copy and ${isOwned} can be written`);
}

/** The copy is the group now, and the parts may be read alone; answers the step that it is at. */
async function checkMoved(path: string, reached: number): Promise<number> {
  const content = await Deno.readFile(`${path}/copy`);
  const parts = decodeGroupHead(content, content.length);
  const steps = parts.map(({ offset, size }) => stepOf(content.subarray(offset, offset + size)));
  checkMoment(steps);
  const step = steps.at(-1)!;
  assert(step >= reached, `step ${step} after ${reached} was promised to be kept`);
  await (await openBackend(`file:${path}/copy`)).close();
  for (const name of NAMES) {
    await (await openBackend(`file:${path}/${name}?readonly`)).close();
    await assertRejects(() => openBackend(`file:${path}/${name}`), FencedError, "given away");
  }
  return step;
}

Deno.test({
  name: withReason(`a group moves ${RUNS} times while its sides are killed`, needs),
  ignore: needs.ignore,
  fn: () => runSeeds(RUNS, run),
});
