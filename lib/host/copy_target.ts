/**
 * Opens the region that a copy goes to, and makes it where that can be done.
 *
 * @module
 */
import { statSync, unlinkSync } from "node:fs";
import { nodeCall } from "../../ffi/node_error.ts";
import type { Backend } from "../backend/backend.ts";
import { parseLocalUrl } from "../backend/local_url.ts";
import { splitDelayUrl } from "../chunk/delay_url.ts";
import { openBackend, type OpenOptions, openUnfenced } from "./open_backend.ts";

/**
 * As `openBackend`, but `memory:`, and a `file:` or `dir:` that is not there yet, need no size: they
 * are made with `size` bytes.
 */
export async function openCopyTarget(
  url: string,
  size: number,
  options: OpenOptions = {},
): Promise<Backend> {
  return await openBackend(await withSize(url, size), options);
}

/**
 * The same of a region that another host may own: for those who hand it over. Where nothing of it is
 * relied on (`anew`), a file that is empty is made anew: whoever made it ended before it had its size.
 */
export async function openHandoverTarget(
  url: string,
  size: number,
  { anew = false } = {},
): Promise<Backend> {
  if (anew) removeEmpty(url);
  return await openUnfenced(await withSize(url, size));
}

function removeEmpty(url: string): void {
  // That has no size yet either.
  if (/^memory:/i.test(url)) return;
  const store = parseLocalUrl(url);
  if (store?.scheme !== "file") return;
  const found = statSync(store.path, { throwIfNoEntry: false });
  if (found?.isFile() && found.size === 0) {
    nodeCall("remove", store.path, () => unlinkSync(store.path));
  }
}

async function withSize(url: string, size: number): Promise<string> {
  const delayed = splitDelayUrl(url);
  if (delayed !== undefined) {
    return `delay:${await withSize(delayed.inner, size)}${delayed.fragment}`;
  }
  if (/^memory:$/i.test(url)) return `${url}${size}`;
  const store = parseLocalUrl(url);
  if (store === undefined || !("path" in store) || store.size !== undefined) return url;
  if (await exists(store.path)) return url;
  return `${url}${url.includes("?") ? "&" : "?"}size=${size}`;
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
