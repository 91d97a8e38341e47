/**
 * What a subcommand is: tables of its options and operands, from which parsing, help and shell
 * completions are made, and the function that runs it.
 *
 * @module
 */

/** What an option's value or an operand is; completions offer what fits. */
export type ValueKind =
  | "text"
  | "url"
  | "path"
  | "size"
  | "count"
  | "command"
  | readonly string[];

/** One option of a command. */
export interface Option {
  /** A word on what it does: no capital, no period. */
  help: string;
  /** What value it takes; missing: none, it is a switch. */
  value?: ValueKind;
  /** What stands for the value in help, e.g. `URL`; needed where it is no choice. */
  label?: string;
  /** It may be given several times. */
  many?: boolean;
  /** The command cannot do without it. */
  required?: boolean;
  /** What is taken where it is not given, as it would be written. */
  default?: string;
}

/** One operand of a command. All are required but a last one that is `optional`; that may be `many`. */
export interface Operand {
  /** Its name in help, e.g. `BACKEND`. */
  name: string;
  /** What it is. */
  help: string;
  /** What values it takes. */
  value: ValueKind;
  /** It may be left out. */
  optional?: boolean;
  /** It is the last one, and may be given several times. */
  many?: boolean;
}

/** The options of a command by name. */
export type Options = Readonly<Record<string, Option>>;

/** What an option can hold once it is parsed. */
export type OptionValue = boolean | string | number | string[] | undefined;

type Scalar<O extends Option> = O["value"] extends "size" | "count" ? number
  : O["value"] extends readonly (infer Choice)[] ? Choice
  : string;

type Parsed<O extends Option> = O extends { value: ValueKind } ? O extends { many: true } ? string[]
  : O extends { required: true } | { default: string } ? Scalar<O>
  : Scalar<O> | undefined
  : boolean;

/** The values of a command's options, typed by its table. */
export type Values<T extends Options> = { readonly [Name in keyof T]: Parsed<T[Name]> };

/** A command as the frame sees it. */
export interface Command {
  /** The word that calls it. */
  name: string;
  /** One line for the list of commands. */
  summary: string;
  /** What there is to know beyond the summary, for its own help. */
  description: string;
  /** In order. */
  operands: readonly Operand[];
  /** By name. */
  options: Options;
  /** Calls that show how it is used, with a word on what they do. */
  examples: readonly { call: string; does: string }[];
  /** Runs it with what was parsed; `commands` are all there are. */
  run(input: Input, commands: readonly Command[]): void | Promise<void>;
}

/** A command line, parsed. */
export interface Input {
  /** As many as were given; a required one is there. */
  operands: string[];
  /** By option name, every option there. */
  values: Readonly<Record<string, OptionValue>>;
}

/** A {@linkcode Command} whose `run` sees its options typed. */
export type CommandOf<T extends Options> = Omit<Command, "options" | "run"> & {
  options: T;
  run(
    operands: string[],
    values: Values<T>,
    commands: readonly Command[],
  ): void | Promise<void>;
};

/** Makes a command of its tables and a `run` that is typed by them. */
export function defineCommand<const T extends Options>(command: CommandOf<T>): Command {
  return {
    ...command,
    run: ({ operands, values }, commands) => command.run(operands, values as Values<T>, commands),
  };
}

/** The option that the commands which print for scripts have in common. */
export const JSON_OPTION = { help: "print JSON, for scripts" } as const satisfies Option;
