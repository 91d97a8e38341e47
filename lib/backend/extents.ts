/**
 * Puts a list of extents together so that it keeps the contract of `Backend.extents`.
 *
 * @module
 */
import type { Extent } from "./backend.ts";

/** Adds a run to the end of a list; one of the same kind grows the last entry, an empty one is dropped. */
export function appendExtent(extents: Extent[], extent: Extent): void {
  if (extent.length === 0) return;
  const last = extents.at(-1);
  if (last !== undefined && last.hole === extent.hole && last.zero === extent.zero) {
    last.length += extent.length;
  } else {
    extents.push(extent);
  }
}
