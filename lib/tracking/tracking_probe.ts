/**
 * Which ways of tracking writes this host has, for this user.
 *
 * @module
 */
import { SystemError } from "../../ffi/errno.ts";
import { close } from "../../ffi/file.ts";
import { probePagemapScan } from "../../ffi/pagemap.ts";
import { openUserfault, UFFD_FEATURE, UserfaultFeatureError } from "../../ffi/userfault_open.ts";
import type { TrackingMethod } from "./write_tracker.ts";

/** One way of tracking writes, as this user finds it on this host. */
export interface TrackingProbe {
  /** Which way. */
  method: TrackingMethod;
  /** Whether it can be gone. */
  available: boolean;
  /** Why not, with what to do; missing where it is available. */
  reason?: string;
}

/** Tries every way, best first. */
export function probeTracking(): TrackingProbe[] {
  return [
    probe("async-wp", UFFD_FEATURE.WP_ASYNC),
    probe("wp-faults", UFFD_FEATURE.PAGEFAULT_FLAG_WP),
    { method: "compare", available: true },
  ];
}

/** The best way that is open here. */
export function bestTracking(): TrackingMethod {
  return probeTracking().find(({ available }) => available)!.method;
}

function probe(method: TrackingMethod, required: number): TrackingProbe {
  try {
    close(openUserfault({ required }).fd);
  } catch (error) {
    if (!(error instanceof SystemError || error instanceof UserfaultFeatureError)) throw error;
    return { method, available: false, reason: error.message };
  }
  return method === "async-wp" ? { method, ...probePagemapScan() } : { method, available: true };
}
