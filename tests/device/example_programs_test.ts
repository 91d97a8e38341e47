/**
 * Runs the example programs in examples/far_region, on less than they take by themselves.
 *
 * @module
 */
import { assertEquals, assertMatch } from "@std/assert";
import { requires, withReason } from "../requires.ts";

const EXAMPLES = new URL("../../examples/far_region/", import.meta.url).pathname;

/** What a program prints. */
async function run(name: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--allow-all", `${EXAMPLES}${name}`, ...args],
    env: { NO_COLOR: "1" },
  }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assertEquals({ code, err }, { code: 0, err: "" });
  return out!;
}

const sqliteNeeds = requires("root", "/dev/fuse", "sqlite3");
Deno.test({
  name: withReason("example: SQLite starts again with what it read the first time", sqliteNeeds),
  ignore: sqliteNeeds.ignore,
  async fn() {
    const out = await run("sqlite_profile.ts", "--size", "8MiB", "--lookups", "20");
    const [, first, second] = out.split("\n");
    const recorded = /first start .*; 0 of 0 chunks .*, (\d+) were not expected$/.exec(first!)?.[1];
    assertMatch(`${recorded}`, /^[1-9]\d*$/);
    const used = `; ${recorded} of ${recorded} chunks were expected rightly, 0 were not expected`;
    assertEquals(second!.slice(second!.indexOf(";")), used);
  },
});

const movieNeeds = requires("root", "/dev/fuse");
Deno.test({
  name: withReason("example: a movie with its index at the end is played", movieNeeds),
  ignore: movieNeeds.ignore,
  async fn() {
    const lines = (await run("mp4.ts", "--frames", "200")).trimEnd().split("\n");
    assertEquals(lines.map((line) => line.split(":")[0]), [
      "direct",
      "managed",
      "managed, end first",
      "managed, recording a profile",
      "managed, with that profile",
    ]);
    for (const line of lines) {
      assertMatch(line, /: first of 200 frames after \d+ ms, 50 frames after \d+ ms$/);
    }
  },
});
