/**
 * The test command: gets what the tests need, runs the sets one after another and ends with the
 * line `N passed, N failed, N skipped`. Exit code 1 where something failed.
 *
 * The files of the unit set are shared among two processes. They are not run with `deno test
 * --parallel`, as that is one process, whose memory, CPU time and descriptors tests measure.
 *
 *     deno task test [--set unit|device|peers|vm]… [--filter TEXT]
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { TextLineStream } from "@std/streams";
import { parseReport, type TestCounts } from "./junit_report.ts";
import { installPackages, type TestSet } from "./packages.ts";

const ROOT = new URL("..", import.meta.url).pathname;

/** The directories below `tests/` whose tests need more than Deno. */
const SPECIAL: readonly Exclude<TestSet, "unit">[] = ["device", "peers", "vm"];

const SETS: readonly TestSet[] = ["unit", ...SPECIAL];

/** Processes that the unit set is shared among; the other sets use what a host has one of. */
const UNIT_PROCESSES = 2;

/** The files and directories that each process of a set runs. */
function sharesOf(set: TestSet): string[][] {
  if (set !== "unit") return [[`tests/${set}`]];
  // The longer a file, the longer it runs, by and large: dealt back and forth, by length.
  const files = ["bench", "cmd", "ffi", "lib", "tests"].flatMap(testFiles)
    .sort((a, b) => b.length - a.length);
  const shares = Array.from({ length: UNIT_PROCESSES }, (): string[] => []);
  for (const [index, { path }] of files.entries()) {
    const place = index % (2 * UNIT_PROCESSES);
    shares[Math.min(place, 2 * UNIT_PROCESSES - 1 - place)]!.push(path);
  }
  return shares;
}

/** The test files of the unit set below a directory, and their lengths in bytes. */
function testFiles(directory: string): { path: string; length: number }[] {
  if (SPECIAL.some((set) => directory === `tests/${set}`)) return [];
  return [...Deno.readDirSync(`${ROOT}${directory}`)].flatMap(({ name, isDirectory }) => {
    const path = `${directory}/${name}`;
    if (isDirectory) return testFiles(path);
    return name.endsWith("_test.ts") ? [{ path, length: Deno.statSync(ROOT + path).size }] : [];
  });
}

async function main(): Promise<number> {
  const { sets, filter } = readArguments();
  installPackages(sets);
  const total: TestCounts = { passed: 0, failed: [], skipped: [] };
  for (const set of sets) {
    console.log(`\n== ${set} tests`);
    for (const counts of await runSet(set, filter)) {
      total.passed += counts.passed;
      total.failed.push(...counts.failed.map((name) => `${set}: ${name}`));
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
  const shares = sharesOf(set);
  const options = filter === undefined ? [] : [`--filter=${filter}`];
  return await Promise.all(
    shares.map((share, index) =>
      runTests([...options, ...share], shares.length === 1 ? "" : `${index + 1}| `)
    ),
  );
}

/** Runs `deno test`; what it prints is shown as it comes, line by line where there is a prefix. */
async function runTests(args: string[], prefix: string): Promise<TestCounts> {
  const reportPath = Deno.makeTempFileSync({ prefix: "telemap-tests-", suffix: ".xml" });
  const output = prefix === "" ? "inherit" : "piped";
  try {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["test", "--allow-all", "--permit-no-files", `--junit-path=${reportPath}`, ...args],
      cwd: ROOT,
      stdin: "null",
      stdout: output,
      stderr: output,
    }).spawn();
    if (output === "piped") {
      await Promise.all([child.stdout, child.stderr].map((stream) => show(stream, prefix)));
    }
    const { success, code } = await child.status;
    const counts = parseReport(Deno.readTextFileSync(reportPath));
    if (!success && counts.failed.length === 0) {
      counts.failed.push(`deno test ended with exit code ${code} outside of the tests`);
    }
    return counts;
  } finally {
    Deno.removeSync(reportPath);
  }
}

async function show(stream: ReadableStream<BufferSource>, prefix: string): Promise<void> {
  const lines = stream.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream());
  for await (const line of lines) console.log(prefix + line);
}

function report({ passed, failed, skipped }: TestCounts): void {
  console.log();
  for (const name of failed) console.log(`failed: ${name}`);
  for (const { name, reason } of skipped) console.log(`skipped: ${name}: ${reason || "no reason"}`);
  console.log(`${passed} passed, ${failed.length} failed, ${skipped.length} skipped`);
}

if (import.meta.main) Deno.exit(await main());
