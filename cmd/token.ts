/**
 * Tokens of the native wire on the command line: in a file, as other users can read arguments.
 *
 * @module
 */
import { TelemapError, UsageError } from "../lib/backend/errors.ts";
import type { Option } from "./command.ts";

/** The option that names the file with the token of a `telemap://` server to connect to. */
export const TOKEN_OPTION = {
  help: "file with the token that the telemap:// server wants to see",
  value: "path",
  label: "FILE",
} as const satisfies Option;

/** The token in a file: its content without white space around it; undefined without a file. */
export async function readToken(path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  const token = (await readText(path)).trim();
  if (token === "") throw new UsageError(`Cannot use ${path} as a token as the file is empty`);
  return token;
}

async function readText(path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    const [code, why] = error instanceof Deno.errors.NotFound
      ? ["ENOENT", "there is no such file"] as const
      : error instanceof Deno.errors.PermissionDenied
      ? ["EACCES", "it may not be read"] as const
      : ["EIO", (error as Error).message] as const;
    throw new TelemapError(code, `Cannot read a token from ${path}: ${why}`, { cause: error });
  }
}
