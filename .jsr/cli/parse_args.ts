/**
 * A stand-in for the part of @std/cli/parse-args that this project uses: the options below, with
 * lists of names, and no numbers, negation, defaults or dotted names.
 *
 * @module
 */

/** The options for {@linkcode parseArgs}. */
export interface ParseOptions {
  /** Arguments that are always booleans; `false` where they are not given. */
  boolean?: ReadonlyArray<string>;
  /** Arguments that are always strings; `_` stands for the operands. */
  string?: ReadonlyArray<string>;
  /** Arguments that may be given several times; their values are collected, `[]` where not given. */
  collect?: ReadonlyArray<string>;
  /** Other names of arguments. */
  alias?: Record<string, string>;
  /** Called for each argument that is not defined above; `false` leaves it out of the result. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** What {@linkcode parseArgs} answers. */
export type Args = Record<string, unknown> & {
  /** The operands: all arguments that belong to no option. */
  _: Array<string | number>;
};

/** Takes command line arguments apart by GNU's conventions. */
export function parseArgs(args: string[], options: ParseOptions = {}): Args {
  const parser = new Parser(options);
  const end = args.indexOf("--");
  const parsed = end < 0 ? args : args.slice(0, end);
  for (let i = 0; i < parsed.length;) i += parser.take(parsed[i]!, parsed[i + 1]);
  return parser.finish(end < 0 ? [] : args.slice(end + 1));
}

class Parser {
  readonly #options: ParseOptions;
  readonly #result: Args = { _: [] };

  constructor(options: ParseOptions) {
    this.#options = options;
  }

  /** Takes an argument, and the next one where that is its value; answers how many it took. */
  take(arg: string, next: string | undefined): number {
    const long = /^--(.+?)(?:=(.*))?$/s.exec(arg);
    if (long !== null) return this.#takeOption(arg, long[1]!, long[2], next);
    if (!/^-[^-]/.test(arg)) {
      if (this.#options.unknown?.(arg) !== false) this.#result._.push(arg);
      return 1;
    }
    const letters = [...arg.slice(1)];
    for (const letter of letters.slice(0, -1)) {
      this.#set(arg, letter, this.#isString(letter) ? "" : true);
    }
    return this.#takeOption(arg, letters.at(-1)!, undefined, next);
  }

  #takeOption(arg: string, key: string, value: string | undefined, next?: string): number {
    if (this.#isBoolean(key)) {
      const said = value ?? (next === "true" || next === "false" ? next : undefined);
      this.#set(arg, key, said !== "false");
      return value === undefined && said !== undefined ? 2 : 1;
    }
    if (value === undefined && next !== undefined && next !== "" && !next.startsWith("-")) {
      this.#set(arg, key, next);
      return 2;
    }
    this.#set(arg, key, value ?? (this.#isString(key) ? "" : true));
    return 1;
  }

  #set(arg: string, key: string, value: string | boolean): void {
    const known = this.#isBoolean(key) || this.#isString(key);
    if (!known && this.#options.unknown?.(arg, key, value) === false) return;
    for (const name of this.#names(key)) {
      const before = this.#result[name];
      const collected = this.#options.collect?.includes(name) ||
        this.#options.collect?.includes(key);
      if (!collected) this.#result[name] = value;
      else if (Array.isArray(before)) before.push(value);
      else this.#result[name] = [value];
    }
  }

  #names(key: string): Set<string> {
    const names = new Set([key]);
    for (const [name, other] of Object.entries(this.#options.alias ?? {})) {
      if (name === key) names.add(other);
      if (other === key) names.add(name);
    }
    return names;
  }

  #isBoolean(key: string): boolean {
    return [...this.#names(key)].some((name) => this.#options.boolean?.includes(name));
  }

  #isString(key: string): boolean {
    return [...this.#names(key)].some((name) => this.#options.string?.includes(name));
  }

  finish(rest: string[]): Args {
    const { boolean = [], collect = [] } = this.#options;
    for (const key of boolean.flatMap((name) => [...this.#names(name)])) {
      this.#result[key] ??= collect.includes(key) ? [] : false;
    }
    for (const key of collect) this.#result[key] ??= [];
    this.#result._.push(...rest);
    return this.#result;
  }
}
