/**
 * Lets another host take several regions over with one consistent cut: what is written to any of them
 * before the program is suspended is there, and all of them are given with one decision.
 *
 * A group is one region for whoever moves it, which begins with a table of its parts.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import { CHUNK_SIZE } from "../chunk/chunk_size.ts";
import { BackendHost } from "../host/host.ts";
import { type BackendSource, isBackend } from "../host/source.ts";
import type { Mount, MountOptions } from "../mount/mount.ts";
import { openSeeding, Seeding, type SeedingOptions, type SeedingState } from "../mount/seeding.ts";
import { GroupMounts, isAnyMapped, type PartMounts } from "./group_mounts.ts";

/** A part of a group that is seeded, and how it is mounted here. */
export interface SeededPart extends Omit<MountOptions, "readOnly"> {
  /** By what it is known at both sides; up to 255 bytes. */
  name: string;
  /**
   * Its bytes, as of `SeederOptions`, without Backend objects where any part is a slice. They may be
   * written. Missing where `region` has them.
   */
  backend?: BackendSource;
}

/** What {@linkcode seedGroup} seeds, and how. */
export interface SeedGroupOptions extends SeedingOptions {
  /** The parts, at most 64. Of a `region`, those that are not named appear as paths. */
  parts: readonly SeededPart[];
  /** Where all of a group lies that came here by `leechGroup`. */
  region?: BackendSource;
}

/** Several regions that are mounted here, and that one other host may take over together. */
export class SeededGroup extends Seeding {
  /** The parts by their names, to work with until they are suspended. */
  readonly mounts: ReadonlyMap<string, Mount>;

  /** Over what is seeded already; {@linkcode seedGroup} is the way in. */
  constructor(state: SeedingState, { mounts }: GroupMounts) {
    super(state);
    this.mounts = mounts;
  }
}

/**
 * Mounts several regions, and lets leechers follow them: `leechGroup`, or whoever takes the whole for
 * one region.
 *
 * ```ts
 * await using group = await seedGroup({
 *   parts: [
 *     { name: "table", backend: "memory:16MiB", as: "file" },
 *     { name: "log", backend: "memory:1MiB", as: "file" },
 *   ],
 *   listen: "telemap://127.0.0.1:0",
 * });
 * console.log(group.url, group.mounts.get("log")!.path);
 * ```
 *
 * @throws {UsageError} for a backend, address or option that cannot be.
 * @throws {UnsupportedError} where this host has no such device.
 * @throws {FencedError} a part was given away, and not with this group.
 */
export async function seedGroup(options: SeedGroupOptions): Promise<SeededGroup> {
  const { parts, region, chunkSize = CHUNK_SIZE, backendToken: token } = options;
  const source = region ?? { parts: parts.map(withBackend) };
  if (region !== undefined && parts.some(({ backend }) => backend !== undefined)) {
    throw new UsageError("Cannot seed parts with a backend of their own out of a region", {
      hint: "leave out the region, or the backends",
    });
  }
  const apart = isAnyMapped(parts);
  const backends = [region, ...parts.map(({ backend }) => backend)];
  const hasObjects = backends.some((backend) => backend !== undefined && isBackend(backend));
  if (hasObjects && parts.some(({ as }) => as === "slice")) {
    throw new UsageError("Cannot mount a slice in a group with a Backend object", {
      hint: "give URLs, or { module, options } that a Worker imports",
    });
  }
  const mounts: PartMounts = Object.fromEntries(parts.map(({ name, ...how }) => [name, how]));
  return await openSeeding(
    options,
    () => BackendHost.startSeeded(source, { chunkSize, token, apart, group: true }),
    (host) => GroupMounts.mount(host, mounts),
    (state, mounted) => new SeededGroup(state, mounted),
  );
}

function withBackend({ name, backend }: SeededPart): { name: string; backend: BackendSource } {
  if (backend !== undefined) return { name, backend };
  throw new UsageError(`Cannot seed the part ${name} without a backend`);
}
