/**
 * Tests of the command line that work in a directory of their own.
 *
 * @module
 */
import { type Requirement, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";

/** Registers a test where the host has what it needs; it is given the path of an empty directory. */
export function testInDirectory(
  needs: Requirement,
): (name: string, fn: (directory: string) => Promise<void>) => void {
  return (name, fn) =>
    Deno.test({
      name: withReason(name, needs),
      ignore: needs.ignore,
      async fn() {
        using directory = temporaryDirectory();
        await fn(directory.path);
      },
    });
}
