/**
 * A side of a migration of a group, for tests: it prints a line of JSON for each thing that happens.
 *
 *     deno run -A group_program.ts seed LISTEN NAME=BACKEND…
 *     deno run -A group_program.ts leech SOURCE LOCAL [KEPT]
 *
 * KEPT: the group was there before its program crashed, and has kept that step.
 *
 * @module
 */
import { leechGroup, type Mount, seedGroup } from "../../mod.ts";
import { finalizeInTime } from "./finalize_in_time.ts";
import { checkMoment, GroupCounter, mendParts, stepsOf } from "./group_counter.ts";

/** Steps that are made where the group came to, before it is enough. */
const STEPS_THERE = 50;
const FILE = { as: "file", device: "fuse" } as const;

function say(event: string, more: Record<string, unknown> = {}): void {
  console.log(JSON.stringify({ event, ...more }));
}

/** Seeds until the group is released, and counts in it while it may. */
async function seed(listen: string, ...named: string[]): Promise<void> {
  const parts = named.map((text) => {
    const [name = "", backend = ""] = text.split(/=(.*)/s);
    return { name, backend, ...FILE };
  });
  const group = await seedGroup({
    ...{ parts, listen, chunkSize: 16384 },
    hooks: {
      onSuspend: async () => {
        await counter?.stop();
        say("suspended", { step: counter?.step });
      },
      onResume: () => void counter?.go(),
    },
  });
  let counter: GroupCounter | undefined;
  say("ready", { stage: group.stage });
  if (group.stage === "serving") {
    counter = await goOn(group.mounts);
    void counter.go();
  }
  await group.released;
  await group.close();
  say("closed");
}

/** Takes a group over, and goes on counting in it. */
async function leech(source: string, local: string, keeping?: string): Promise<void> {
  const group = await leechGroup({ source, local, ...FILE });
  say("following");
  const mounts = await finalizeInTime(1000, (suspendMs) => {
    return group.finalize({ strategy: "force", maxTime: 100, suspendMs });
  });
  const kept = keeping === undefined ? undefined : Number(keeping);
  const counter = kept === undefined ? await goOn(mounts) : await mend(mounts, kept);
  say("owner", { step: kept ?? counter.step });
  await counter.go(STEPS_THERE);
  for (const mount of mounts.values()) await mount.sync();
  say("synced", { step: counter.step });
  await group.completed();
  await group.close();
  say("complete", { step: counter.step });
}

/** Counts on from where the parts are, which has to be one moment. */
async function goOn(mounts: ReadonlyMap<string, Mount>): Promise<GroupCounter> {
  const steps = await stepsOf(mounts.values());
  checkMoment(steps);
  return new GroupCounter(mounts.values(), { step: steps.at(-1)! });
}

/** Counts on from what a crash has left, all but the step that was kept. */
async function mend(mounts: ReadonlyMap<string, Mount>, kept: number): Promise<GroupCounter> {
  const step = await mendParts(mounts.values(), kept);
  return new GroupCounter(mounts.values(), { step });
}

const [mode, ...rest] = Deno.args;
if (mode === "seed") await seed(...rest as [string, ...string[]]);
else await leech(...rest as [string, string, string?]);
