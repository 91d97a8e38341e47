/**
 * Takes several regions over that are seeded as a group, with one consistent cut.
 *
 * @module
 */
import type { BackendHost } from "../host/host.ts";
import {
  type ChainOptions,
  Leeching,
  type LeechingOptions,
  startLeeching,
} from "../mount/leecher.ts";
import type { Mount, MountOptions } from "../mount/mount.ts";
import { GroupMounts, isAnyMapped } from "./group_mounts.ts";
import { SeededGroup } from "./seed_group.ts";

/** How a part of a group is mounted that comes here. */
export type LeechedPart = Omit<MountOptions, "readOnly">;

/** What {@linkcode leechGroup} brings here, and how. */
export interface LeechGroupOptions extends LeechingOptions, Pick<MountOptions, "as" | "device"> {
  /** How parts are mounted, by their names; as `as` and `device` say unless told. */
  parts?: Readonly<Record<string, LeechedPart>>;
}

/**
 * Several regions on their way here together. `finalize` answers with the mounts of all of them, by
 * their names.
 */
export class LeechedGroup extends Leeching<ReadonlyMap<string, Mount>> {
  readonly #mounts: GroupMounts;

  /** Over what is copied already; {@linkcode leechGroup} is the way in. */
  constructor(host: BackendHost, mounts: GroupMounts) {
    super(host, mounts.mounts, mounts);
    this.#mounts = mounts;
  }

  /** Lets others take the group over in turn, from the same devices; as `Leecher.seed`. */
  async seed(options: ChainOptions): Promise<SeededGroup> {
    return new SeededGroup(await this.seedOn(options), this.#mounts);
  }
}

/**
 * Begins to copy the group of a `seedGroup`, and prepares the devices of its parts, of which nothing
 * can be read yet. All of it comes to lie in one place, from where `seedGroup` takes it as its
 * `region`.
 *
 * @throws {UsageError} for an address or option that cannot be, or where the seeder has no group.
 * @throws {ConnectionError | DeadlineError} there is no seeder there.
 */
export async function leechGroup(options: LeechGroupOptions): Promise<LeechedGroup> {
  const { parts = {}, as, device } = options;
  const others = { ...(as !== undefined && { as }), ...(device !== undefined && { device }) };
  const apart = isAnyMapped([others, ...Object.values(parts)]);
  const host = await startLeeching(options, { apart, group: true });
  return new LeechedGroup(host, await GroupMounts.mount(host, parts, others));
}
