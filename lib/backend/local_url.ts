/**
 * The URLs of stores on this host: `memory:1GiB`, `pattern:1GiB?seed=7`,
 * `file:/p?size=1GiB&readonly`, `dir:/p?size=1GiB&chunk=1MiB`.
 *
 * They are taken apart by hand, as `URL` makes an absolute path of the relative one in `file:p`.
 *
 * @module
 */
import type { OpenDirectoryOptions } from "./directory.ts";
import { UsageError } from "./errors.ts";
import type { OpenFileOptions } from "./file.ts";
import type { OpenMemoryOptions } from "./memory.ts";
import type { OpenPatternOptions } from "./pattern.ts";
import { parseSize } from "./size.ts";

/** What a local URL asks to open. */
export type LocalStore =
  | { scheme: "memory" } & OpenMemoryOptions
  | { scheme: "pattern" } & OpenPatternOptions
  | { scheme: "file" } & OpenFileOptions
  | { scheme: "dir" } & OpenDirectoryOptions;

/**
 * Takes a URL apart; undefined where its scheme is none of a local store.
 * Throws {@linkcode UsageError} on anything in it that is malformed, unknown or missing.
 */
export function parseLocalUrl(url: URL | string): LocalStore | undefined {
  const text = String(url);
  const match = /^(memory|pattern|file|dir):([^?#]*)(?:\?([^#]*))?(#.*)?$/is.exec(text);
  if (match === null) return undefined;
  const [, scheme = "", rest = "", query = "", fragment] = match;
  if (fragment !== undefined) {
    throw refusal(text, "it has a fragment", "write %23 for # in a path");
  }
  switch (scheme.toLowerCase()) {
    case "memory":
      parseQuery(text, query, []);
      return { scheme: "memory", size: parseSize(decoded(text, rest)) };
    case "pattern": {
      const { seed } = parseQuery(text, query, ["seed"]);
      return {
        scheme: "pattern",
        size: parseSize(decoded(text, rest)),
        ...(seed !== undefined && { seed: parseSeed(text, seed) }),
      };
    }
    case "file": {
      const { size, readonly } = parseQuery(text, query, ["size", "readonly"]);
      return {
        scheme: "file",
        path: parsePath(text, rest),
        ...(size !== undefined && { size: parseSize(size) }),
        ...(readonly !== undefined && { readOnly: parseFlag(text, "readonly", readonly) }),
      };
    }
    default: {
      const { size, chunk, readonly } = parseQuery(text, query, ["size", "chunk", "readonly"]);
      return {
        scheme: "dir",
        path: parsePath(text, rest),
        ...(size !== undefined && { size: parseSize(size) }),
        ...(chunk !== undefined && { chunkSize: parseSize(chunk) }),
        ...(readonly !== undefined && { readOnly: parseFlag(text, "readonly", readonly) }),
      };
    }
  }
}

/** The path after the scheme, with an empty authority or none; relative where it has no slash first. */
function parsePath(url: string, rest: string): string {
  const authority = /^\/\/([^/]*)/.exec(rest);
  if (authority !== null && !["", "localhost"].includes(authority[1]!)) {
    const hint = "write one slash or three before an absolute path, none before a relative one";
    throw refusal(url, `it names the host ${authority[1]}, and the store is on this one`, hint);
  }
  const path = decoded(url, rest.slice(authority?.[0].length ?? 0));
  if (path === "") throw refusal(url, "it has no path", "write it after the colon");
  return path;
}

function decoded(url: string, text: string): string {
  let result: string;
  try {
    result = decodeURIComponent(text);
  } catch {
    throw refusal(url, "an escape in it is malformed", "write %25 for %");
  }
  if (result.includes("\0")) throw refusal(url, "it holds a NUL");
  return result;
}

/** The parameters of a query, which are to be known and given once. */
function parseQuery<const K extends string>(
  url: string,
  query: string,
  known: readonly K[],
): Partial<Record<K, string>> {
  const values: Partial<Record<string, string>> = {};
  const hint = known.length > 0 ? `it may have ${known.join(", ")}` : "it may have none";
  for (const [name, value] of new URLSearchParams(query)) {
    if (!(known as readonly string[]).includes(name)) {
      throw refusal(url, `the parameter ${JSON.stringify(name)} is unknown`, hint);
    }
    if (Object.hasOwn(values, name)) throw refusal(url, `it has ${name} twice`);
    values[name] = value;
  }
  return values as Partial<Record<K, string>>;
}

function parseFlag(url: string, name: string, value: string): boolean {
  if (["", "1", "true"].includes(value)) return true;
  if (["0", "false"].includes(value)) return false;
  throw refusal(url, `${name} is neither true nor false`);
}

function parseSeed(url: string, value: string): number {
  const seed = /^\d+$/.test(value) ? Number(value) : NaN;
  if (Number.isSafeInteger(seed)) return seed;
  throw refusal(url, `seed is no whole number from 0 to ${Number.MAX_SAFE_INTEGER}`);
}

function refusal(url: string, reason: string, hint?: string): UsageError {
  return new UsageError(
    `Cannot use the URL ${url} as ${reason}`,
    hint === undefined ? {} : { hint },
  );
}
