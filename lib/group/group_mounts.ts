/**
 * The parts of a group that a host has, each mounted by itself.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import { settleAll } from "../backend/settle.ts";
import { isMapped } from "../device/attach.ts";
import type { BackendHost } from "../host/host.ts";
import { HostedPart } from "../host/hosted_part.ts";
import { type HostedMount, type Mount, mountHost, type MountOptions } from "../mount/mount.ts";
import type { Mounted } from "../mount/seeding.ts";

/** How parts are mounted, by their names. */
export type PartMounts = Readonly<Record<string, MountOptions>>;

/**
 * Whether the host must live in a process of its own, as some of the parts are mapped (see `isMapped`).
 *
 * @throws {UsageError} others of them have to be paged in by a Worker of this process.
 */
export function isAnyMapped(parts: readonly Pick<MountOptions, "as" | "device">[]): boolean {
  const slices = parts.filter(({ as }) => as === "slice").map(({ device: choice = "auto" }) =>
    isMapped({ choice, as: "slice" })
  );
  if (new Set(slices).size < 2) return slices[0] === true;
  throw new UsageError("Cannot have slices by userfault and by other devices in one group", {
    hint: "name the same device for all of its slices",
  });
}

/** See the module. */
export class GroupMounts implements Mounted {
  /** They, by their names. */
  readonly mounts: ReadonlyMap<string, Mount>;
  readonly #open: ReadonlyMap<string, HostedMount>;

  /**
   * Mounts the parts of a host, which is closed with the last of them, or where this throws; those that
   * `options` does not name as `others` says. Throws as `mountHost` does.
   */
  static async mount(
    host: BackendHost,
    options: PartMounts,
    others: MountOptions = {},
  ): Promise<GroupMounts> {
    const open = new Map<string, HostedMount>();
    try {
      const parts = host.facts.parts ?? [];
      checkNames(Object.keys(options), parts.map(({ name }) => name));
      for (const part of parts) {
        const { name } = part;
        const hosted = new HostedPart(host, part, async () => {
          open.delete(name);
          if (open.size === 0) await host.close();
        });
        const how = Object.hasOwn(options, name) ? options[name]! : others;
        open.set(name, await mountHost(hosted, how));
      }
      return new GroupMounts(open);
    } catch (error) {
      await Promise.allSettled([...open.values()].map((mount) => mount.close()));
      await host.close();
      throw error;
    }
  }

  private constructor(open: ReadonlyMap<string, HostedMount>) {
    this.#open = open;
    this.mounts = new Map(open);
  }

  /** Brings to the host what the kernel has of those that are still mounted; missing as of a mount. */
  get writeBack(): (() => Promise<void>) | undefined {
    const all = () => [...this.#open.values()].flatMap(({ writeBack }) => writeBack ?? []);
    if (all().length === 0) return undefined;
    return async () => {
      await settleAll(all().map((writeBack) => writeBack()));
    };
  }

  /** Closes all of them, each as by itself: where one is in use (EBUSY), it stays, and so does the host. */
  async close(): Promise<void> {
    await settleAll([...this.mounts.values()].map((mount) => mount.close()));
  }
}

function checkNames(asked: readonly string[], found: readonly string[]): void {
  const missing = asked.find((name) => !found.includes(name));
  if (missing === undefined) return;
  throw new UsageError(`Cannot mount a part of the name ${missing}`, {
    hint: `the group has ${found.join(", ")}`,
  });
}
