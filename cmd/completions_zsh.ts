/**
 * Makes the completion script for zsh out of the tables of the commands.
 *
 * @module
 */
import type { Command, Option, ValueKind } from "./command.ts";
import { URL_FORMS } from "./url_forms.ts";

/** A script for a file `_telemap` in a directory of `fpath`, or to be sourced after compinit. */
export function zshScript(commands: readonly Command[]): string {
  return `#compdef telemap
# Completes telemap's command lines in zsh.

_telemap_url() {
  case "$PREFIX" in
    file:*|dir:*) compset -P '*:'; _files ;;
    *) compadd -S '' -- ${URL_FORMS.map(({ start }) => start).join(" ")} ;;
  esac
}

_telemap_command() {
  local -a commands=(
${commands.map(({ name, summary }) => `    ${quote(`${name}:${summary}`)}`).join("\n")}
  )
  _describe command commands
}

_telemap() {
  local curcontext="$curcontext" state line
  _arguments -C \\
    '(- *)'{-h,--help}'[print help]' '(- *)--version[print the version]' \\
    '1:command:_telemap_command' '*::argument:->arguments'
  [[ $state == arguments ]] || return
  case $words[1] in
${commands.map(commandCase).join("\n")}
  esac
}

if [[ $funcstack[1] == _telemap ]]; then _telemap "$@"; else compdef _telemap telemap; fi
`;
}

function commandCase(command: Command): string {
  const specs = [
    ...Object.entries(command.options).map(([name, option]) => optionSpec(name, option)),
    quote("(- *)--help[print this help]"),
    ...command.operands.map(({ name, value, optional, many }, i) =>
      quote(`${many ? "*" : i + 1}:${optional ? ":" : ""}${name}:${action(value)}`)
    ),
  ];
  return `    ${command.name}) _arguments ${specs.join(" ")} ;;`;
}

function optionSpec(name: string, option: Option): string {
  const help = option.help.replace(/[[\]\\:]/g, "\\$&");
  const value = option.value === undefined
    ? ""
    : `:${option.label ?? name}:${action(option.value)}`;
  return quote(
    `${option.many ? "*" : ""}--${name}${value === "" ? "" : "="}[${help}]${value}`,
  );
}

function action(value: ValueKind): string {
  if (typeof value === "object") return `(${value.join(" ")})`;
  if (value === "url") return "_telemap_url";
  if (value === "command") return "_telemap_command";
  return value === "path" ? "_files" : "";
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
