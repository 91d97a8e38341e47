/**
 * Runs real programs in device tests.
 *
 * @module
 */
import { assert } from "@std/assert";

const decoder = new TextDecoder();

/** Runs a shell script to its end; throws with what it said where it fails. */
export async function shell(script: string): Promise<string> {
  const { success, stdout, stderr } = await tryShell(script);
  assert(success, `${script}: ${stderr}`);
  return stdout;
}

/** What a shell script said, and whether it succeeded. */
export async function tryShell(
  script: string,
): Promise<{ success: boolean; stdout: string; stderr: string }> {
  // Messages of programs are compared as they are in the C locale.
  const options = { args: ["-ec", script], env: { LC_ALL: "C" } };
  const { success, stdout, stderr } = await new Deno.Command("sh", options).output();
  return { success, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** A temporary directory that is removed with all it holds. */
export function temporaryDirectory(): { path: string } & Disposable {
  const path = Deno.makeTempDirSync({ prefix: "telemap-test-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** Waits until a condition holds: what it waits for tells of itself in no other way. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!condition()) {
    assert(performance.now() < deadline, `waited 10 s in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
