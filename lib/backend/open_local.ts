/**
 * Opens the stores of this host by URL.
 *
 * @module
 */
import type { Backend } from "./backend.ts";
import { openDirectory } from "./directory.ts";
import { openFile } from "./file.ts";
import { parseLocalUrl } from "./local_url.ts";
import { openMemory } from "./memory.ts";
import { openPattern } from "./pattern.ts";

/**
 * Opens `memory:SIZE`, `pattern:SIZE[?seed=N]`, `file:PATH[?size=SIZE][&readonly]` or
 * `dir:PATH[?size=SIZE][&chunk=SIZE][&readonly]`; undefined where the URL has another scheme.
 * Relative paths are so to the working directory. Throws `UsageError` on a malformed URL and
 * whatever opening the store throws.
 */
export function openLocal(url: URL | string): Backend | undefined {
  const store = parseLocalUrl(url);
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
