/**
 * Parses a command line by the tables of its command.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { UsageError } from "../lib/backend/errors.ts";
import { parseSize } from "../lib/backend/size.ts";
import type { Command, Input, Option, OptionValue, ValueKind } from "./command.ts";

/** A command line that asks for the command's help instead of the command. */
export const HELP_REQUEST = "help";

/**
 * Parses what follows the command's name, or answers {@linkcode HELP_REQUEST} for `--help`.
 *
 * @throws {UsageError} for an option that is not known, a value that is missing or not
 * well-formed, and for too few or too many operands.
 */
export function parseCommandLine(
  command: Command,
  args: string[],
): Input | typeof HELP_REQUEST {
  const options = Object.entries(command.options);
  const switches = options.filter(([, option]) => option.value === undefined).map(([name]) => name);
  const refuse = (why: string): never => {
    throw new UsageError(why, { hint: `see telemap ${command.name} --help` });
  };
  const parsed: Record<string, unknown> = parseArgs(args, {
    boolean: [...switches, "help"],
    string: ["_", ...options.map(([name]) => name).filter((name) => !switches.includes(name))],
    collect: options.filter(([, option]) => option.many).map(([name]) => name),
    alias: { h: "help" },
    unknown: (argument, key) => key === undefined || refuse(`${flagOf(argument)} is not known`),
  });
  if (parsed["help"] === true) return HELP_REQUEST;
  const values: Record<string, OptionValue> = {};
  for (const [name, option] of options) values[name] = readOption(name, option, parsed, refuse);
  const operands = (parsed["_"] as (string | number)[]).map(String);
  checkOperands(command, operands, refuse);
  return { operands, values };
}

type Refuse = (why: string) => never;

function flagOf(argument: string): string {
  return argument.split("=", 1)[0]!;
}

function readOption(
  name: string,
  option: Option,
  parsed: Record<string, unknown>,
  refuse: Refuse,
): OptionValue {
  const { value: kind } = option;
  if (kind === undefined) return parsed[name] === true;
  if (option.many) {
    const texts = parsed[name] as string[];
    if (option.required && texts.length === 0) refuse(`--${name} ${option.label ?? ""} is missing`);
    if (texts.includes("")) refuse(`--${name} needs a value`);
    return texts;
  }
  const text = (parsed[name] as string | undefined) ?? option.default;
  if (text === undefined) {
    return option.required ? refuse(`--${name} ${option.label ?? ""} is missing`) : undefined;
  }
  if (text === "") refuse(`--${name} needs a value`);
  return readValue(`--${name}`, text, kind, refuse);
}

function readValue(what: string, text: string, kind: ValueKind, refuse: Refuse): string | number {
  if (typeof kind === "object") {
    return kind.includes(text) ? text : refuse(`${what} is one of ${kind.join(", ")}, not ${text}`);
  }
  if (kind === "size") return parseSize(text);
  if (kind !== "count") return text;
  return /^[1-9][0-9]{0,8}$/.test(text)
    ? Number(text)
    : refuse(`${what} is a number from 1, not ${text}`);
}

function checkOperands(command: Command, given: string[], refuse: Refuse): void {
  for (const [i, { name, value, optional }] of command.operands.entries()) {
    const text = given[i];
    if (text === undefined || text === "") {
      if (!optional) refuse(`${name} is missing`);
    } else readValue(name, text, value, refuse);
  }
  const last = command.operands.at(-1);
  if (last?.many) {
    for (const text of given.slice(command.operands.length)) {
      if (text === "") refuse(`${last.name} needs a value`);
      readValue(last.name, text, last.value, refuse);
    }
    return;
  }
  const extra = given[command.operands.length];
  if (extra !== undefined) refuse(`${extra} is one operand too many`);
}
