/**
 * Measures telemap against its peers on this machine, in alternating runs, and prints medians and
 * ratios: `deno task bench [nbd|wire|fuse|managed|profile|migration|userfault|tracking|footprint]… [--rounds N]
 * [--seconds N] [--size SIZE]`, the last of which is that of the region of managed mounts.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { compareOpening, idleMemory } from "./footprint.ts";
import { compareFuse } from "./fuse.ts";
import { compareManaged } from "./managed.ts";
import { compareMigration } from "./migration.ts";
import { compareNbdServers } from "./nbd_server.ts";
import { compareProfile } from "./profile.ts";
import { table } from "./statistics.ts";
import { parseSize } from "../mod.ts";
import { readCpuTimes, stolenShare } from "./stolen_time.ts";
import { compareUserfault } from "./userfault.ts";
import { compareWire } from "./wire.ts";
import { compareTracking } from "./write_tracking.ts";

const args = parseArgs(Deno.args, { string: ["rounds", "seconds", "size"] });
const rounds = Number(args.rounds ?? 5), seconds = Number(args.seconds ?? 2);
const size = parseSize(String(args.size ?? "512MiB"));

const PARTS: Record<string, () => Promise<string[]>> = {
  nbd: async () => (await compareNbdServers(rounds, seconds)).map(table),
  wire: async () => [table(await compareWire(rounds, seconds))],
  fuse: async () => (await compareFuse(rounds, seconds)).map(table),
  managed: () => compareManaged({ rounds, seconds, size }),
  profile: () => compareProfile(rounds),
  migration: () => compareMigration(rounds),
  userfault: () => compareUserfault(rounds),
  tracking: async () => (await compareTracking(rounds)).map(table),
  footprint: async () => [await idleMemory(), table(await compareOpening(rounds))],
};

const wanted = args._.length === 0 ? Object.keys(PARTS) : args._.map(String);
for (const part of wanted) {
  const run = PARTS[part];
  if (run === undefined) {
    console.error(`There is no benchmark ${part}: choose of ${Object.keys(PARTS).join(", ")}`);
    Deno.exit(2);
  }
  const before = readCpuTimes();
  for (const lines of await run()) console.log(`${lines}\n`);
  const stolen = (stolenShare(before, readCpuTimes()) * 100).toFixed(0);
  console.log(
    `The host kept ${stolen} % of the cores' time from this machine: the more, the less to trust\n`,
  );
}
