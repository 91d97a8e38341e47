/**
 * The command line of telemap: finds the subcommand, runs it and turns errors into exit codes.
 *
 * @module
 */
import { UsageError } from "../lib/backend/errors.ts";
import type { Command } from "./command.ts";
import { completions } from "./completions.ts";
import { copy } from "./copy.ts";
import { demo } from "./demo.ts";
import { doctor } from "./doctor.ts";
import { reportFailure } from "./failure.ts";
import { commandHelp, findCommand, help, programHelp } from "./help.ts";
import { info } from "./info.ts";
import { leech } from "./leech.ts";
import { migrate } from "./migrate.ts";
import { mount } from "./mount.ts";
import { HELP_REQUEST, parseCommandLine } from "./parse.ts";
import { seed } from "./seed.ts";
import { serve } from "./serve.ts";
import { uffd } from "./uffd.ts";
import { version } from "./version.ts";

/** All commands, in the order in which help lists them. */
export const COMMANDS: readonly Command[] = [
  doctor,
  serve,
  mount,
  seed,
  leech,
  migrate,
  uffd,
  copy,
  info,
  demo,
  completions,
  help,
  version,
];

async function run(args: string[]): Promise<void> {
  const [name, ...rest] = args;
  if (name === undefined) {
    throw new UsageError("No command is given", { hint: "see telemap --help" });
  }
  if (name === "--help" || name === "-h") return console.log(programHelp(COMMANDS));
  const command = findCommand(name === "--version" ? "version" : name, COMMANDS);
  const input = parseCommandLine(command, rest);
  if (input === HELP_REQUEST) return console.log(commandHelp(command));
  await command.run(input, COMMANDS);
}

if (import.meta.main) {
  let code = 0;
  try {
    await run(Deno.args);
  } catch (error) {
    code = reportFailure(error);
  }
  Deno.exit(code);
}
