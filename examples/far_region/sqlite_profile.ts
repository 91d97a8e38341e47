/**
 * A program that starts on a far database: SQLite on a managed mount, which records what is read
 * first, and has that at hand the next time.
 *
 *     deno run -A examples/far_region/sqlite_profile.ts [--size 256MiB] [--lookups 200]
 *
 * It needs root and `/dev/fuse`, or fusermount3, and `sqlite3`.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { formatSize, mountManaged, parseSize } from "../../mod.ts";
import { serveFarAway } from "./serve_far_away.ts";
import { lookUp, type Lookups, makeDatabase, rowsOf } from "./lookups.ts";

/** How far away the database is. */
const LINK = "rtt=25ms&rate=1GB/s";

const args = parseArgs(Deno.args, { string: ["size", "lookups"] });
const size = parseSize(String(args.size ?? "256MiB"));
const database: Lookups = { rows: rowsOf(size), lookups: Number(args.lookups ?? 200) };
const directory = await Deno.makeTempDir({ prefix: "telemap-example-" });

/** Starts the program on a mount whose cache is empty, with the profile of the time before. */
async function start(remote: string, name: string): Promise<void> {
  await using mount = await mountManaged({
    remote,
    local: `file:${directory}/${name}.cache`,
    profile: `${directory}/profile`,
    device: "fuse",
  });
  const lasted = await lookUp(mount.path, database);
  const { expected, used, missed } = (await mount.progress()).profile!;
  console.log(
    `The ${name} start took ${lasted.toFixed(0)} ms; ` +
      `${used} of ${expected} chunks were expected rightly, ${missed} were not expected`,
  );
}

try {
  await makeDatabase(`${directory}/database`, database);
  await using remote = await serveFarAway(`file:${directory}/database?readonly`, LINK);
  console.log(
    `${database.lookups} lookups in a database of ${formatSize(size)}, ${LINK} away`,
  );
  await start(remote.url, "first");
  await start(remote.url, "second");
} finally {
  await Deno.remove(directory, { recursive: true });
}
