/**
 * Where the record of who owns a region lies, and when it can be locked.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { HandoverFile, handoverPath } from "../backend/handover_file.ts";
import { parseLocalUrl } from "../backend/local_url.ts";

/** See the module. */
export interface HandoverPlace {
  /** The path of the record. */
  readonly path: string;
  /** That of the region. */
  readonly region: string;
  /** Whether it lies in the region. */
  readonly isWithin: boolean;
}

/** Where the record of a region lies that is named by URL; undefined where it has none. */
export function handoverPlace(url: string): HandoverPlace | undefined {
  const store = parseLocalUrl(url);
  const path = handoverPath(store);
  if (store === undefined || path === undefined || !("path" in store)) return undefined;
  return { path, region: store.path, isWithin: store.scheme === "dir" };
}

/**
 * Locks a record before its region is opened or made; undefined where it cannot lie there yet. Then
 * there is none, and it is to be locked once the region is there. Throws as `HandoverFile.lock` does.
 */
export function lockBefore({ path, isWithin }: HandoverPlace): HandoverFile | undefined {
  // A directory becomes a region only while there is nothing in it.
  return existsSync(isWithin ? path : dirname(path)) ? HandoverFile.lock(path) : undefined;
}
