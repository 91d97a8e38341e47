/**
 * Runs the shell commands that users give for certain moments.
 *
 * @module
 */
import { TelemapError } from "../mod.ts";

/** Runs a command of an option, if there is one. Throws {@linkcode TelemapError} where it fails. */
export async function runShell(command: string | undefined, option: string): Promise<void> {
  if (command === undefined) return;
  const { code } = await new Deno.Command("sh", {
    // Standard output is for events.
    args: ["-c", `exec >&2\n${command}`],
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).spawn().status;
  if (code === 0) return;
  throw new TelemapError("EIO", `The command of ${option} ended with code ${code}: ${command}`);
}
