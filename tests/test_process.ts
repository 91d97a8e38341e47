/**
 * Runs `deno test` in a process of its own, and counts what came of it.
 *
 * @module
 */
import { parseReport, type TestCounts } from "./junit_report.ts";

const ROOT = new URL("..", import.meta.url).pathname;

/** How {@linkcode runTests} runs. */
export interface TestProcessOptions {
  /** Print what it prints as a whole when it ends, not as it comes. */
  atEnd?: boolean;
  /** Kill it after so many ms, and count it as failed; never unless told. */
  limitMs?: number;
}

/** Runs the tests of a path in the repository, with further arguments for `deno test`. */
export async function runTests(
  path: string,
  args: string[],
  options: TestProcessOptions = {},
): Promise<TestCounts> {
  const { atEnd = false, limitMs = Infinity } = options;
  const reportPath = Deno.makeTempFileSync({ prefix: "telemap-tests-", suffix: ".xml" });
  try {
    const output = atEnd ? "piped" : "inherit";
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        "test",
        "--allow-all",
        "--permit-no-files",
        `--junit-path=${reportPath}`,
        ...args,
        path,
      ],
      cwd: ROOT,
      stdin: "null",
      stdout: output,
      stderr: output,
    }).spawn();
    const hung = new AbortController();
    const timer = limitMs === Infinity ? undefined : setTimeout(() => {
      hung.abort();
      kill(child);
    }, limitMs);
    if (atEnd) await print(child, hung.signal);
    const { success, code } = await child.status;
    clearTimeout(timer);
    const counts = parseReport(Deno.readTextFileSync(reportPath));
    if (hung.signal.aborted) {
      counts.failed.push({ name: path, why: `It was not over after ${limitMs / 1000} s` });
    } else if (!success && counts.failed.length === 0) {
      counts.failed.push({
        name: path,
        why: `It ended with exit code ${code} outside of the tests`,
      });
    }
    return counts;
  } finally {
    Deno.removeSync(reportPath);
  }
}

/** Kills a process, which may be over while one that it left behind still holds its output. */
function kill(child: Deno.ChildProcess): void {
  try {
    child.kill("SIGKILL");
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
  }
}

/** Prints both outputs of a process, in the order of what came, when it ended or is given up. */
async function print({ stdout, stderr }: Deno.ChildProcess, signal: AbortSignal): Promise<void> {
  const decoder = new TextDecoder();
  let text = "";
  await Promise.allSettled([stdout, stderr].map((stream) => {
    const sink = new WritableStream<Uint8Array>({
      write: (bytes) => void (text += decoder.decode(bytes, { stream: true })),
    });
    return stream.pipeTo(sink, { signal });
  }));
  console.log(text.trim());
}
