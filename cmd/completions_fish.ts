/**
 * Makes the completion script for fish out of the tables of the commands.
 *
 * @module
 */
import type { Command, ValueKind } from "./command.ts";
import { URL_FORMS } from "./url_forms.ts";

/** A script for `~/.config/fish/completions/telemap.fish`. */
export function fishScript(commands: readonly Command[]): string {
  const names = commands.map(({ name }) => name).join(" ");
  const lines = [
    "# Completes telemap's command lines in fish.",
    "complete -c telemap -f",
    `complete -c telemap -n __fish_use_subcommand -s h -l help -d 'print help'`,
    `complete -c telemap -n __fish_use_subcommand -l version -d 'print the version'`,
  ];
  for (const command of commands) {
    const only = `-n ${quote(`__fish_seen_subcommand_from ${command.name}`)}`;
    lines.push(
      `complete -c telemap -n __fish_use_subcommand -a ${command.name} -d ${
        quote(command.summary)
      }`,
    );
    for (const [name, { help, value }] of Object.entries(command.options)) {
      const offer = value === undefined ? "" : ` ${offered(value, names)}`;
      lines.push(`complete -c telemap ${only} -l ${name}${offer} -d ${quote(help)}`);
    }
    lines.push(`complete -c telemap ${only} -s h -l help -d 'print this help'`);
    const kinds = new Set(command.operands.map(({ value }) => wordsOf(value, names)));
    for (const words of kinds) {
      if (words !== "") lines.push(`complete -c telemap ${only} -a ${quote(words)}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

function offered(value: ValueKind, names: string): string {
  if (value === "path") return "-r -F";
  const words = wordsOf(value, names);
  return words === "" ? "-x" : `-x -a ${quote(words)}`;
}

function wordsOf(value: ValueKind, names: string): string {
  if (typeof value === "object") return value.join(" ");
  if (value === "command") return names;
  return value === "url" ? URL_FORMS.map(({ start }) => start).join(" ") : "";
}

function quote(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
