/**
 * `telemap version`: prints the version.
 *
 * @module
 */
import project from "../deno.json" with { type: "json" };
import { type Command, defineCommand } from "./command.ts";

/** See the module. */
export const version: Command = defineCommand({
  name: "version",
  summary: "Print the version",
  description: "",
  operands: [],
  options: {},
  examples: [],
  run: () => console.log(`telemap ${project.version}`),
});
