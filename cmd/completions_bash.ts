/**
 * Makes the completion script for bash out of the tables of the commands.
 *
 * Bash splits words at `:` and `=`, which URLs and `--option=value` contain. So the script takes
 * the line apart at blanks itself, and gives back only what follows the last such character.
 *
 * @module
 */
import type { Command, ValueKind } from "./command.ts";
import { URL_FORMS } from "./url_forms.ts";

/** A script to be sourced by bash 4 or later. */
export function bashScript(commands: readonly Command[]): string {
  const names = commands.map(({ name }) => name);
  return `# Completes telemap's command lines in bash.

# What comes after an option, or as an operand of that number: url, path, text or words.
_telemap_value() {
  case "$1 $2" in
${commands.flatMap((one) => valueCases(one, names)).map((line) => `    ${line}`).join("\n")}
  esac
}

_telemap_options() {
  case "$1" in
${commands.map((one) => `    ${one.name}) echo "${flags(one).join(" ")}" ;;`).join("\n")}
  esac
}

_telemap_candidates() {
  local kind=$1 current=$2
  case "$kind" in
    "words "*) compgen -W "\${kind#words }" -- "$current" ;;
    path) compgen -f -- "$current" ;;
    url)
      case "$current" in
        file:/* | dir:/*) compgen -P "\${current%%:*}:" -f -- "\${current#*:}" ;;
        *) compgen -W "${URL_FORMS.map(({ start }) => start).join(" ")}" -- "$current" ;;
      esac
      ;;
  esac
}

_telemap() {
  local line=\${COMP_LINE:0:COMP_POINT} words current command operand=0 kind="" i
  read -ra words <<< "$line"
  [[ $line == *[[:blank:]] ]] && words+=("")
  current=\${words[-1]}
  command=\${words[1]}
  COMPREPLY=()
  if ((\${#words[@]} <= 2)); then
    kind="words ${names.join(" ")} --help --version"
  else
    for ((i = 2; i < \${#words[@]} - 1; i++)); do
      if [[ -n $kind ]]; then
        kind=""
      elif [[ \${words[i]} == -* ]]; then
        [[ \${words[i]} != *=* ]] && kind=$(_telemap_value "$command" "\${words[i]}")
      else
        operand=$((operand + 1))
      fi
    done
    if [[ -z $kind && $current == --*=* ]]; then
      kind=$(_telemap_value "$command" "\${current%%=*}")
      current=\${current#*=}
    elif [[ -z $kind && $current == -* ]]; then
      kind="words $(_telemap_options "$command")"
    elif [[ -z $kind ]]; then
      kind=$(_telemap_value "$command" "$((operand + 1))")
    fi
  fi
  mapfile -t COMPREPLY < <(_telemap_candidates "$kind" "$current")
  [[ $kind == path || ($kind == url && \${COMPREPLY[0]} == *[:/]*) ]] && compopt -o nospace
  local shown=\${current%"\${current##*[:=]}"}
  COMPREPLY=("\${COMPREPLY[@]#"$shown"}")
}

complete -F _telemap telemap
`;
}

function flags(command: Command): string[] {
  return [...Object.keys(command.options).map((name) => `--${name}`), "--help"];
}

function valueCases(command: Command, names: string[]): string[] {
  const values: [string, ValueKind][] = command.operands.map(({ value }, i) => [`${i + 1}`, value]);
  for (const [name, { value }] of Object.entries(command.options)) {
    if (value !== undefined) values.push([`--${name}`, value]);
  }
  const cases = values.map(([what, value]) => {
    return `"${command.name} ${what}") echo "${kindOf(value, names)}" ;;`;
  });
  const last = command.operands.at(-1);
  if (last?.many) cases.push(`"${command.name} "[0-9]*) echo "${kindOf(last.value, names)}" ;;`);
  return cases;
}

function kindOf(value: ValueKind, names: string[]): string {
  if (typeof value === "object") return `words ${value.join(" ")}`;
  if (value === "command") return `words ${names.join(" ")}`;
  return value === "url" || value === "path" ? value : "text";
}
