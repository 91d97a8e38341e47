/**
 * Several backends as one region: their table, and then they themselves; and one of them out of it.
 *
 * @module
 */
import type { Backend } from "../backend/backend.ts";
import { UsageError } from "../backend/errors.ts";
import { openFixed } from "../backend/fixed.ts";
import { joinBackends } from "../backend/joined.ts";
import { alignBackend } from "../chunk/align.ts";
import { windowOf } from "../chunk/window.ts";
import {
  decodeGroupHead,
  encodeGroupHead,
  GROUP_HEAD_BYTES,
  type GroupPart,
} from "../migration/group_head.ts";
import { partId } from "./region_id.ts";

/** A backend with the name that it has in a group. */
export interface NamedBackend {
  /** See `NamedSize`. */
  readonly name: string;
  /** Its bytes. */
  readonly backend: Backend;
}

/**
 * Makes a group of backends, which belong to the answer and are closed with it.
 *
 * @throws {UsageError} they cannot be one: as of `encodeGroupHead`.
 */
export function groupBackends(parts: readonly NamedBackend[], alignment: number): Backend {
  const named = parts.map(({ name, backend }) => ({ name, size: backend.size }));
  const head = openFixed(encodeGroupHead(named, alignment));
  return joinBackends([head, ...parts.map(({ backend }) => alignBackend(backend))], alignment);
}

/** The parts of a region that is a group. Throws as `decodeGroupHead` and `readAt` do. */
export async function partsOf(region: Backend): Promise<GroupPart[]> {
  const head = new Uint8Array(Math.min(GROUP_HEAD_BYTES, region.size));
  await region.readAt(head, 0);
  return decodeGroupHead(head, region.size);
}

/**
 * Shows one part of a region that is a group, and belongs to the answer. Throws as {@linkcode partsOf},
 * and {@linkcode UsageError} where it has no such part.
 */
export async function partOf(region: Backend, name: string): Promise<Backend> {
  const parts = await partsOf(region);
  const part = parts.find((part) => part.name === name);
  if (part === undefined) {
    throw new UsageError(`Cannot find a part of the name ${name}`, {
      hint: `the group has ${parts.map(({ name }) => name).join(", ")}`,
    });
  }
  const { regionId } = region;
  return windowOf(alignBackend(region), {
    ...part,
    ...(regionId !== undefined && { regionId: partId(regionId, name) }),
  });
}
