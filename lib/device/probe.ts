/**
 * What this host can do with devices, for this user, and what dead processes left on it.
 *
 * @module
 */
import type { DeviceKind, Probe } from "./device.ts";
import { probeFuse } from "./fuse.ts";
import { probeLoop } from "./loop.ts";
import { probeNbd } from "./nbd_probe.ts";
import { findStaleNbd, sweepStaleNbd } from "./nbd_stale.ts";
import { probeMemory } from "./userfault_probe.ts";
import { cleanStale, findStale, type StaleDevice } from "./stale.ts";

/** The probe of each kind of device. */
export const PROBES: Readonly<Record<DeviceKind, () => Probe>> = {
  nbd: probeNbd,
  loop: probeLoop,
  fuse: probeFuse,
  userfault: probeMemory,
};

/** What this host can do, device by device: why, why not, and how to mend it. */
export function probeHost(): Probe[] {
  return Object.values(PROBES).map((probe) => probe());
}

/** Devices and mounts whose owner died: the paths of what {@linkcode sweepStale} would remove. */
export async function listStale(): Promise<string[]> {
  return paths(findStale(), await findStaleNbd());
}

/** Removes devices and mounts whose owner died, and answers the paths of those that are gone. */
export async function sweepStale(): Promise<string[]> {
  return paths(await cleanStale(), await sweepStaleNbd());
}

function paths(...found: Pick<StaleDevice, "path">[][]): string[] {
  return found.flat().map(({ path }) => path);
}
