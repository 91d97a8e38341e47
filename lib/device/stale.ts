/**
 * FUSE mounts that a killed process left behind, and the loop devices over their files.
 *
 * @module
 */
import { closeAsync, O, openAsync } from "../../ffi/file.ts";
import { unbindLoop } from "../../ffi/loop.ts";
import { SUBTYPE, unmount } from "../fuse/mount.ts";
import { readMountTable } from "../fuse/mount_table.ts";
import { within } from "./deadline.ts";
import { boundFile } from "./loop.ts";
import { isOwnerGone } from "./owner.ts";

/** Something without an owner. */
export interface StaleDevice {
  /** What it is. */
  kind: "fuse" | "loop";
  /** The mount point, or the block device. */
  path: string;
}

/** How long one of them may take to go. */
const CLEAN_MS = 5000;
/** Names of mount points that `prepareMountPoint` makes. */
const OWN_DIRECTORY = /\/telemap-[^/]+$/;

/** The mounts whose owner is gone, and the loop devices over them, which come first. */
export function findStale(): StaleDevice[] {
  const mountPoints = readMountTable()
    .filter(({ type, source }) => type === `fuse.${SUBTYPE}` && isOwnerGone(source))
    .map(({ mountPoint }) => mountPoint);
  const loops = loopDevices().filter((path) => {
    const file = boundFile(path);
    return mountPoints.some((mountPoint) => file?.startsWith(`${mountPoint}/`));
  });
  return [
    ...loops.map((path): StaleDevice => ({ kind: "loop", path })),
    ...mountPoints.map((path): StaleDevice => ({ kind: "fuse", path })),
  ];
}

/**
 * Takes away what {@linkcode findStale} finds; answers what is gone. A loop device that is mounted
 * goes when it is unmounted.
 */
export async function cleanStale(): Promise<StaleDevice[]> {
  const stale = findStale();
  // Mounts first: then nothing that a loop device does waits any more.
  const cleaned: StaleDevice[] = [];
  for (const device of stale.toReversed()) {
    const clean = device.kind === "fuse" ? cleanMount(device.path) : cleanLoop(device.path);
    if (await within(CLEAN_MS, clean) === true) cleaned.unshift(device);
  }
  return cleaned;
}

async function cleanMount(mountPoint: string): Promise<boolean> {
  const unmounted = await unmount(mountPoint, { force: true });
  if (unmounted && OWN_DIRECTORY.test(mountPoint)) removeEmpty(mountPoint);
  return unmounted;
}

function removeEmpty(directory: string): void {
  try {
    Deno.removeSync(directory);
  } catch {
    // Somebody uses it: theirs now.
  }
}

async function cleanLoop(path: string): Promise<boolean> {
  const device = await openAsync(path, O.RDONLY);
  if (device < 0) return false;
  const unbound = await unbindLoop(device);
  await closeAsync(device);
  return unbound && boundFile(path) === undefined;
}

function loopDevices(): string[] {
  try {
    return [...Deno.readDirSync("/sys/block")]
      .filter(({ name }) => /^loop\d+$/.test(name))
      .map(({ name }) => `/dev/${name}`);
  } catch {
    return [];
  }
}
