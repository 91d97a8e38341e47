/**
 * The contract of a device: what appears on this host when a backend is attached to it.
 *
 * @module
 */

import type { MemoryStatistics } from "../host/memory_statistics.ts";

/** The kinds of device: all put a region at a path, but `userfault`, which makes it memory. */
export type DeviceKind = "nbd" | "fuse" | "loop" | "userfault";

/** Which device to use; `auto` takes the best that this host has. */
export type DeviceChoice = DeviceKind | "auto";

/** A region as memory of this process. */
export interface DeviceMemory {
  /** The bytes; empty once the device is detached. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Answers when all that was written to the bytes before is durable in the backend. */
  push(): Promise<void>;
  /** What was counted so far. */
  statistics(): Promise<MemoryStatistics>;
}

/** A backend, attached. */
export interface Device {
  /** What it is. */
  readonly kind: DeviceKind;
  /** Where it appeared: a block device, or a file for `fuse`; empty for memory. */
  readonly path: string;
  /** The memory, of `userfault`. */
  readonly memory?: DeviceMemory;
  /** Settles when the device goes away, asked for or not; with the error, if one took it away. */
  readonly gone: Promise<Error | undefined>;
  /**
   * Takes the device away and answers when it is free again. What was not flushed before is
   * flushed, unless `force`: then I/O in flight fails, and nothing is waited for that may never come.
   */
  detach(options?: { force?: boolean }): Promise<void>;
}

/** What this host can do with one kind of device, for this user. */
export interface Probe {
  /** The device, e.g. `nbd`. */
  name: string;
  /** Whether it can be attached here and now. */
  available: boolean;
  /** Why, or why not. */
  reason: string;
  /** What to do to make it available; missing where nothing is to be done. */
  fix?: string;
}
