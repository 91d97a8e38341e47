/**
 * Record and replay: how long a program takes to start on a far database whose mount has no cache yet,
 * without an access profile, and with the one that the start before it recorded.
 *
 * @module
 */
import { formatSize, mountManaged } from "../mod.ts";
import { serveFarAway } from "../examples/far_region/serve_far_away.ts";
import { lookUp, type Lookups, makeDatabase, rowsOf } from "../examples/far_region/lookups.ts";
import { median, table } from "./statistics.ts";
import { takeMemory } from "./take_memory.ts";

const SIZE = 256 << 20;
const LOOKUPS = 200;
const LINK = "rtt=25ms&rate=1GB/s";
/** The most that a second start may take of the first. */
const TARGET = 1 / 3;

/** What is started, and where. */
interface Site {
  remote: string;
  directory: string;
  database: Lookups;
}

/** Measures so many pairs of starts. */
export async function compareProfile(rounds: number): Promise<string[]> {
  const directory = await Deno.makeTempDir({ prefix: "telemap-bench-" });
  try {
    const database = { rows: rowsOf(SIZE), lookups: LOOKUPS };
    await makeDatabase(`${directory}/database`, database);
    await using remote = await serveFarAway(`file:${directory}/database?readonly`, LINK);
    const site = { remote: remote.url, directory, database };
    const first: number[] = [], second: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const profile = `${directory}/profile.${round}`;
      for (const starts of [first, second]) {
        takeMemory(2 * SIZE);
        starts.push(await start(site, profile));
      }
    }
    return [describe(first, second)];
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Starts the program on a mount with a new cache; answers its milliseconds. */
async function start({ remote, directory, database }: Site, profile: string): Promise<number> {
  const cache = await Deno.makeTempDir({ dir: directory });
  try {
    await using mount = await mountManaged({
      remote,
      local: `file:${cache}/region`,
      profile,
      device: "fuse",
    });
    return await lookUp(mount.path, database);
  } finally {
    await Deno.remove(cache, { recursive: true });
  }
}

function describe(first: number[], second: number[]): string {
  const comparison = table({
    title: `${LOOKUPS} lookups by sqlite3 in ${formatSize(SIZE)}, ${LINK} away, no cache (ms)`,
    figures: new Map([["second start", second], ["first start", first]]),
    better: "lower",
    subject: "second start",
  });
  const share = median(second.map((lasted, round) => lasted / first[round]!));
  const met = share <= TARGET ? "met" : "MISSED";
  return `${comparison}\n  second of first: ${share.toFixed(2)} (target 0.33: ${met})`;
}
