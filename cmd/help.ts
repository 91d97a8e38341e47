/**
 * The help texts, made from the tables of the commands, and the command that prints them.
 *
 * @module
 */
import { UsageError } from "../lib/backend/errors.ts";
import { type Command, defineCommand, type Option } from "./command.ts";
import { URL_FORMS } from "./url_forms.ts";

/** Columns of running text. */
const WIDTH = 88;

/** The help of the whole program. */
export function programHelp(commands: readonly Command[]): string {
  return [
    "Mounts, synchronises and migrates memory regions over a network.",
    "",
    "Usage: telemap COMMAND [OPTION]… [OPERAND]…",
    "",
    "Commands:",
    ...columns(commands.map(({ name, summary }) => [name, summary])),
    "",
    "Regions and addresses are URLs:",
    ...columns(URL_FORMS.map(({ form, help }) => [form, help])),
    "",
    "Exit codes: 0 done, 1 failed, 2 wrong use. TELEMAP_DEBUG=1 shows the stack of an error.",
    "telemap COMMAND --help tells more of a command.",
  ].join("\n");
}

/** The help of one command. */
export function commandHelp(command: Command): string {
  const lines = [`${command.summary}.`];
  if (command.description !== "") lines.push("", ...wrap(command.description));
  lines.push("", `Usage: ${usage(command)}`);
  if (command.operands.length > 0) {
    lines.push("", "Operands:", ...columns(command.operands.map((one) => [one.name, one.help])));
  }
  const options: [string, string][] = Object.entries(command.options)
    .map(([name, option]) => [flag(name, option), optionHelp(option)]);
  lines.push("", "Options:", ...columns([...options, ["-h, --help", "print this help"]]));
  if (command.examples.length > 0) {
    lines.push("", "Examples:");
    for (const { call, does } of command.examples) lines.push(`  # ${does}`, `  ${call}`);
  }
  return lines.join("\n");
}

/** A call of the command in one line, e.g. `telemap serve BACKEND --listen URL… [OPTION]…`. */
function usage(command: Command): string {
  const operands = command.operands.map(({ name, optional, many }) => {
    const one = `${name}${many ? "…" : ""}`;
    return optional ? `[${one}]` : one;
  });
  const options = Object.entries(command.options);
  const required = options.filter(([, option]) => option.required)
    .map(([name, option]) => `${flag(name, option)}${option.many ? "…" : ""}`);
  const others = options.length > required.length ? ["[OPTION]…"] : [];
  return ["telemap", command.name, ...operands, ...required, ...others].join(" ");
}

function flag(name: string, option: Option): string {
  if (option.value === undefined) return `--${name}`;
  const label = typeof option.value === "object" ? option.value.join("|") : option.label ?? "VALUE";
  return `--${name} ${label}`;
}

function optionHelp(option: Option): string {
  const notes: string[] = [];
  if (option.many) notes.push("may be repeated");
  if (option.default !== undefined) notes.push(`default ${option.default}`);
  return notes.length === 0 ? option.help : `${option.help} (${notes.join("; ")})`;
}

/** The lines of a text, broken at blanks where they are too long. */
function wrap(text: string): string[] {
  return text.split("\n").flatMap((paragraph) => {
    const lines = [""];
    for (const word of paragraph.split(" ")) {
      const longer = lines.at(-1) === "" ? word : `${lines.at(-1)} ${word}`;
      if (longer.length > WIDTH && lines.at(-1) !== "") lines.push(word);
      else lines[lines.length - 1] = longer;
    }
    return lines;
  });
}

function columns(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`);
}

/** `telemap help [COMMAND]`. */
export const help: Command = defineCommand({
  name: "help",
  summary: "Print help, of the program or of a command",
  description: "",
  operands: [{ name: "COMMAND", help: "the command", value: "command", optional: true }],
  options: {},
  examples: [],
  run([name], _values, commands) {
    if (name === undefined) return console.log(programHelp(commands));
    console.log(commandHelp(findCommand(name, commands)));
  },
});

/** The command of that name. Throws {@linkcode UsageError} where there is none. */
export function findCommand(name: string, commands: readonly Command[]): Command {
  const found = commands.find((command) => command.name === name);
  if (found !== undefined) return found;
  throw new UsageError(`${name} is no command`, { hint: "see telemap --help" });
}
