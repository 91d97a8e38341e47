/**
 * The configuration that a process of this program's gets, so that it imports modules as this one does.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

const NAMES = ["deno.json", "deno.jsonc"];

/** Options of `deno run`: the nearest configuration from a directory upwards, or none. */
export function configOf(directory: string): string[] {
  for (let at = directory;; at = dirname(at)) {
    for (const name of NAMES) {
      if (existsSync(join(at, name))) return ["--config", join(at, name)];
    }
    if (at === dirname(at)) return ["--no-config"];
  }
}
