/**
 * Direct mounts: a backend becomes a path, a file or a byte slice on this host, and every access
 * goes through to it.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import { isMapped } from "../device/attach.ts";
import { BackendHost } from "../host/host.ts";
import { type BackendSource, isBackend } from "../host/source.ts";
import { type Mount, mountHost, type MountOptions } from "./mount.ts";

/** What {@linkcode mountDirect} mounts, and how. */
export interface DirectMountOptions extends MountOptions {
  /**
   * The region: a URL, `{ module, options }`, or (path and file only) a Backend object. A slice
   * cannot be served by the isolate that touches it, so an object is refused there.
   */
  backend: BackendSource;
  /** What a `telemap://` server wants to see. */
  token?: string;
}

/**
 * Mounts a backend.
 *
 * ```ts
 * await using mount = await mountDirect({ backend: "memory:16MiB", as: "slice" });
 * mount.bytes.set(new TextEncoder().encode("hello"), 4096);
 * await mount.sync();
 * ```
 *
 * @throws {UsageError} for a backend or option that cannot be.
 * @throws {UnsupportedError} where this host has no such device.
 */
export async function mountDirect(options: DirectMountOptions): Promise<Mount> {
  if (options.as === "slice" && isBackend(options.backend)) {
    throw new UsageError("Cannot mount a Backend object as a slice", {
      hint: "the isolate that touches a slice may stop at any access, so it cannot serve it: " +
        "give a URL, or { module, options } that a Worker imports",
    });
  }
  const { backend, token, device: choice = "auto", as = "path" } = options;
  const host = await BackendHost.start(backend, { token, apart: isMapped({ choice, as }) });
  return await mountHost(host, options);
}
