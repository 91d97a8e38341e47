/**
 * Seeders: a mount whose region others can take over while a program uses it.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import { CHUNK_SIZE } from "../chunk/chunk_size.ts";
import { isMapped } from "../device/attach.ts";
import { BackendHost } from "../host/host.ts";
import { type BackendSource, isBackend } from "../host/source.ts";
import { type Mount, mountHost, type MountOptions } from "./mount.ts";
import { openSeeding, Seeding, type SeedingOptions, type SeedingState } from "./seeding.ts";

/** What {@linkcode Seeder.open} seeds, and how. */
export interface SeederOptions extends MountOptions, SeedingOptions {
  /** The region: a URL, `{ module, options }`, or (path and file only) a Backend object. */
  backend: BackendSource;
}

/** A region that is mounted here, and that one other host may take over. */
export class Seeder extends Seeding {
  /** The region, to work with until it is suspended. */
  readonly mount: Mount;

  /**
   * Mounts a region, and lets leechers follow it.
   *
   * ```ts
   * await using seeder = await Seeder.open({
   *   backend: "memory:16MiB",
   *   listen: "telemap://127.0.0.1:0",
   *   as: "file",
   * });
   * console.log(seeder.url, seeder.stage);
   * ```
   *
   * @throws {UsageError} for a backend, address or option that cannot be.
   * @throws {UnsupportedError} where this host has no such device.
   */
  static async open(options: SeederOptions): Promise<Seeder> {
    const { backend, chunkSize = CHUNK_SIZE, backendToken: token } = options;
    const { device: choice = "auto", as = "path" } = options;
    if (as === "slice" && isBackend(backend)) {
      throw new UsageError("Cannot mount a Backend object as a slice", {
        hint: "give a URL, or { module, options } that a Worker imports",
      });
    }
    const apart = isMapped({ choice, as });
    return await openSeeding(
      options,
      () => BackendHost.startSeeded(backend, { chunkSize, token, apart }),
      (host) => mountHost(host, options),
      (state, mount) => new Seeder(state, mount),
    );
  }

  /** Over what is seeded already; {@linkcode Seeder.open} is the way in. */
  constructor(state: SeedingState, mount: Mount) {
    super(state);
    this.mount = mount;
  }
}
