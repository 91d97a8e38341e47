/**
 * Opens the stores of this host by URL.
 *
 * @module
 */
import type { Backend } from "./backend.ts";
import { openDirectory } from "./directory.ts";
import { checkFence } from "./handover_file.ts";
import { openFile } from "./file.ts";
import { parseLocalUrl } from "./local_url.ts";
import { openMemory } from "./memory.ts";
import { openPattern } from "./pattern.ts";

/** How {@linkcode openLocal} opens. */
export interface OpenLocalOptions {
  /** Also where another host owns the region: for those who hand it over. */
  unfenced?: boolean | undefined;
}

/**
 * Opens `memory:SIZE`, `pattern:SIZE[?seed=N]`, `file:PATH[?size=SIZE][&readonly]` or
 * `dir:PATH[?size=SIZE][&chunk=SIZE][&readonly]`; undefined where the URL has another scheme.
 * Relative paths are so to the working directory. Throws `UsageError` on a malformed URL,
 * `FencedError` where another host owns the region, and whatever opening the store throws.
 */
export function openLocal(
  url: URL | string,
  options: OpenLocalOptions = {},
): Backend | undefined {
  const store = parseLocalUrl(url);
  if (store !== undefined && options.unfenced !== true) checkFence(store);
  switch (store?.scheme) {
    case "memory":
      return openMemory(store);
    case "pattern":
      return openPattern(store);
    case "file":
      return openFile(store);
    case "dir":
      return openDirectory(store);
    case undefined:
      return undefined;
  }
}
