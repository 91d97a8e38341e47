/**
 * The test command: gets what the tests need, runs the sets one after another and ends with the
 * line `N passed, N failed, N skipped`. Exit code 1 where something failed.
 *
 *     deno task test [--set unit|device|peers|vm]… [--filter TEXT]
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { parseReport, type TestCounts } from "./junit_report.ts";
import { installPackages, type TestSet } from "./packages.ts";

const ROOT = new URL("..", import.meta.url).pathname;

/** The directories below `tests/` whose tests need more than Deno. */
const SPECIAL: readonly Exclude<TestSet, "unit">[] = ["device", "peers", "vm"];

const SETS: readonly TestSet[] = ["unit", ...SPECIAL];

/** Where the files of a set are: directories, searched for `*_test.ts`, and a pattern. */
function pathsOf(set: TestSet): string[] {
  if (set !== "unit") return [`tests/${set}`];
  const others = [...Deno.readDirSync(`${ROOT}tests`)]
    .filter(({ name, isDirectory }) => isDirectory && !SPECIAL.some((special) => special === name))
    .map(({ name }) => `tests/${name}`);
  return ["bench", "cmd", "ffi", "lib", "tests/*_test.ts", ...others.sort()];
}

function main(): number {
  const { sets, filter } = readArguments();
  installPackages(sets);
  const total: TestCounts = { passed: 0, failed: [], skipped: [] };
  for (const set of sets) {
    console.log(`\n== ${set} tests`);
    const counts = runSet(set, filter);
    total.passed += counts.passed;
    total.failed.push(...counts.failed.map((name) => `${set}: ${name}`));
    total.skipped.push(...counts.skipped);
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

function runSet(set: TestSet, filter: string | undefined): TestCounts {
  const reportPath = Deno.makeTempFileSync({ prefix: "telemap-tests-", suffix: ".xml" });
  try {
    const args = ["test", "--allow-all", "--permit-no-files", `--junit-path=${reportPath}`];
    if (filter !== undefined) args.push(`--filter=${filter}`);
    const { success, code } = new Deno.Command(Deno.execPath(), {
      args: [...args, ...pathsOf(set)],
      cwd: ROOT,
      stdin: "null",
      stdout: "inherit",
      stderr: "inherit",
    }).outputSync();
    const counts = parseReport(Deno.readTextFileSync(reportPath));
    if (!success && counts.failed.length === 0) {
      counts.failed.push(`deno test ended with exit code ${code} outside of the tests`);
    }
    return counts;
  } finally {
    Deno.removeSync(reportPath);
  }
}

function report({ passed, failed, skipped }: TestCounts): void {
  console.log();
  for (const name of failed) console.log(`failed: ${name}`);
  for (const { name, reason } of skipped) console.log(`skipped: ${name}: ${reason || "no reason"}`);
  console.log(`${passed} passed, ${failed.length} failed, ${skipped.length} skipped`);
}

if (import.meta.main) Deno.exit(main());
