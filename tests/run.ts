/**
 * The test command: gets what the tests need, runs the sets one after another and ends with the
 * line `N passed, N failed, N skipped`. Exit code 1 where something failed.
 *
 * Each file of the unit set is a process of its own, two at a time. They are not run with `deno test
 * --parallel`, as that is one process, whose memory, CPU time and descriptors tests measure.
 *
 *     deno task test [--set unit|device|peers|vm]… [--filter TEXT]
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import type { TestCounts } from "./junit_report.ts";
import { installPackages, type TestSet } from "./packages.ts";
import { runTests } from "./test_process.ts";

const ROOT = new URL("..", import.meta.url).pathname;

/** The directories below `tests/` whose tests need more than Deno. */
const SPECIAL: readonly Exclude<TestSet, "unit">[] = ["device", "peers", "vm"];

const SETS: readonly TestSet[] = ["unit", ...SPECIAL];

/** Files of the unit set that run at a time; the other sets use what a host has one of. */
const UNIT_PROCESSES = 2;

/** A file of the unit set that takes so many ms hangs. */
const UNIT_FILE_MS = 180_000;

async function main(): Promise<number> {
  const { sets, filter } = readArguments();
  installPackages(sets);
  const total: TestCounts = { passed: 0, failed: [], skipped: [] };
  for (const set of sets) {
    console.log(`\n== ${set} tests`);
    for (const counts of await runSet(set, filter)) {
      total.passed += counts.passed;
      total.failed.push(
        ...counts.failed.map(({ name, why }) => ({ name: `${set}: ${name}`, why })),
      );
      total.skipped.push(...counts.skipped);
    }
  }
  report(total);
  return total.failed.length > 0 ? 1 : 0;
}

function readArguments(): { sets: TestSet[]; filter: string | undefined } {
  const parsed: Record<string, unknown> = parseArgs(Deno.args, {
    string: ["set", "filter"],
    collect: ["set"],
    unknown: (argument) => fail(`${argument} is not known`),
  });
  const asked = parsed["set"] as string[];
  const wrong = asked.find((name) => !SETS.some((set) => set === name));
  if (wrong !== undefined) fail(`--set is one of ${SETS.join(", ")}`);
  const sets = SETS.filter((set) => asked.length === 0 || asked.includes(set));
  return { sets, filter: parsed["filter"] as string | undefined };
}

function fail(why: string): never {
  console.error(`run.ts: ${why}`);
  Deno.exit(2);
}

/** Answers the counts of each process of a set. */
async function runSet(set: TestSet, filter: string | undefined): Promise<TestCounts[]> {
  const args = filter === undefined ? [] : [`--filter=${filter}`];
  if (set !== "unit") return [await runTests(`tests/${set}`, args)];
  // Those that cross files take the longest; many short ones even out the end.
  const files = ["tests", "cmd", "lib", "bench", "ffi"].flatMap(testFiles);
  if (!await checkTypes(files)) {
    return [{ passed: 0, failed: [{ name: "the types of the tests", why: "above" }], skipped: [] }];
  }
  const counts: TestCounts[] = [];
  const work = async () => {
    for (let path = files.shift(); path !== undefined; path = files.shift()) {
      const options = { atEnd: true, limitMs: UNIT_FILE_MS };
      counts.push(await runTests(path, ["--no-check", ...args], options));
    }
  };
  await Promise.all(Array.from({ length: UNIT_PROCESSES }, work));
  return counts;
}

/** The test files of the unit set below a directory, in the order of their names. */
function testFiles(directory: string): string[] {
  if (SPECIAL.some((set) => directory === `tests/${set}`)) return [];
  const entries = [...Deno.readDirSync(`${ROOT}${directory}`)];
  return entries.sort((a, b) => a.name < b.name ? -1 : 1).flatMap(({ name, isDirectory }) => {
    const path = `${directory}/${name}`;
    if (isDirectory) return testFiles(path);
    return name.endsWith("_test.ts") ? [path] : [];
  });
}

async function checkTypes(files: string[]): Promise<boolean> {
  const args = ["check", "--quiet", ...files];
  return (await new Deno.Command(Deno.execPath(), { args, cwd: ROOT }).spawn().status).success;
}

function report({ passed, failed, skipped }: TestCounts): void {
  console.log();
  for (const { name, why } of failed) console.log(`failed: ${name}\n${why.replace(/^/gm, "  ")}`);
  for (const { name, reason } of skipped) console.log(`skipped: ${name}: ${reason || "no reason"}`);
  console.log(`${passed} passed, ${failed.length} failed, ${skipped.length} skipped`);
}

if (import.meta.main) Deno.exit(await main());
