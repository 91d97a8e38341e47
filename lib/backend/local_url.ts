/**
 * The URLs of stores on this host: `memory:1GiB`, `pattern:1GiB?seed=7`,
 * `file:/p?size=1GiB&readonly`, `dir:/p?size=1GiB&chunk=1MiB`.
 *
 * They are taken apart by hand, as `URL` makes an absolute path of the relative one in `file:p`.
 *
 * @module
 */
import type { OpenDirectoryOptions } from "./directory.ts";
import type { OpenFileOptions } from "./file.ts";
import type { OpenMemoryOptions } from "./memory.ts";
import type { OpenPatternOptions } from "./pattern.ts";
import { parseSize } from "./size.ts";
import { parseParameters, parseSeed, unusableUrl } from "./url_parameters.ts";

/** What a local URL asks to open. */
export type LocalStore =
  | { scheme: "memory" } & OpenMemoryOptions
  | { scheme: "pattern" } & OpenPatternOptions
  | { scheme: "file" } & OpenFileOptions
  | { scheme: "dir" } & OpenDirectoryOptions;

/**
 * Takes a URL apart; undefined where its scheme is none of a local store.
 * Throws `UsageError` on anything in it that is malformed, unknown or missing.
 */
export function parseLocalUrl(url: URL | string): LocalStore | undefined {
  const text = String(url);
  const match = /^(memory|pattern|file|dir):([^?#]*)(?:\?([^#]*))?(#.*)?$/is.exec(text);
  if (match === null) return undefined;
  const [, scheme = "", rest = "", query = "", fragment] = match;
  if (fragment !== undefined) {
    throw unusableUrl(text, "it has a fragment", "write %23 for # in a path");
  }
  switch (scheme.toLowerCase()) {
    case "memory":
      parseParameters(text, query, []);
      return { scheme: "memory", size: parseSize(decoded(text, rest)) };
    case "pattern": {
      const { seed } = parseParameters(text, query, ["seed"]);
      return {
        scheme: "pattern",
        size: parseSize(decoded(text, rest)),
        ...(seed !== undefined && { seed: parseSeed(text, seed) }),
      };
    }
    case "file": {
      const { size, readonly } = parseParameters(text, query, ["size", "readonly"]);
      return {
        scheme: "file",
        path: parsePath(text, rest),
        ...(size !== undefined && { size: parseSize(size) }),
        ...(readonly !== undefined && { readOnly: parseFlag(text, "readonly", readonly) }),
      };
    }
    default: {
      const { size, chunk, readonly } = parseParameters(text, query, ["size", "chunk", "readonly"]);
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
    throw unusableUrl(url, `it names the host ${authority[1]}, and the store is on this one`, hint);
  }
  const path = decoded(url, rest.slice(authority?.[0].length ?? 0));
  if (path === "") throw unusableUrl(url, "it has no path", "write it after the colon");
  return path;
}

function decoded(url: string, text: string): string {
  let result: string;
  try {
    result = decodeURIComponent(text);
  } catch {
    throw unusableUrl(url, "an escape in it is malformed", "write %25 for %");
  }
  if (result.includes("\0")) throw unusableUrl(url, "it holds a NUL");
  return result;
}

function parseFlag(url: string, name: string, value: string): boolean {
  if (["", "1", "true"].includes(value)) return true;
  if (["0", "false"].includes(value)) return false;
  throw unusableUrl(url, `${name} is neither true nor false`);
}
