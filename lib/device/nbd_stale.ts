/**
 * NBD devices whose owner was killed: the kernel keeps those, failing all new I/O, until somebody
 * takes them away.
 *
 * A device that is attached by netlink shows its owner in /sys/block/nbdN/backend (Linux 5.14). One
 * that is attached by ioctl goes away with its owner by itself.
 *
 * @module
 */
import { ERRNO, SystemError } from "../../ffi/errno.ts";
import {
  disconnectAttributes,
  NBD_CMD,
  openNbdFamily,
  statusAttributes,
  statusDevices,
} from "../../ffi/nbd.ts";
import type { GenericNetlink } from "../../ffi/netlink_socket.ts";
import { isOwnerGone } from "./owner.ts";
import { readAttribute } from "./sysfs.ts";

/** A device of telemap's whose owner is gone. */
export interface StaleNbd {
  /** N of /dev/nbdN. */
  index: number;
  /** The device. */
  path: string;
}

/** How long what used a device may take to let go of it once its I/O has failed. */
const RELEASE_MS = 1000;
const POLL_MS = 5;

/** The devices whose owners are gone; none where the kernel's NBD client cannot be reached. */
export async function findStaleNbd(): Promise<StaleNbd[]> {
  using netlink = openNbdFamily();
  if (netlink === undefined) return [];
  const [answer] = await netlink.request(NBD_CMD.STATUS, statusAttributes());
  return statusDevices(answer)
    .filter(({ index }) => isStale(index))
    .map(({ index }) => ({ index, path: `/dev/nbd${index}` }));
}

/**
 * Takes the devices of dead owners away, which fails the I/O that still waits for them, and answers
 * which are gone. One that is mounted goes when it is unmounted. Without CAP_SYS_ADMIN they stay.
 */
export async function sweepStaleNbd(): Promise<StaleNbd[]> {
  const stale = await findStaleNbd();
  using netlink = stale.length === 0 ? undefined : openNbdFamily();
  if (netlink === undefined) return [];
  const swept: StaleNbd[] = [];
  for (const device of stale) {
    if (await disconnect(netlink, device.index) && await isReleased(device.index)) {
      swept.push(device);
    }
  }
  return swept;
}

/** The kernel shows the owner until the last user of the device has closed it. */
function isStale(index: number): boolean {
  return isOwnerGone(readAttribute(`/sys/block/nbd${index}/backend`) ?? "");
}

async function isReleased(index: number): Promise<boolean> {
  const deadline = performance.now() + RELEASE_MS;
  while (isStale(index)) {
    if (performance.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  return true;
}

async function disconnect(netlink: GenericNetlink, index: number): Promise<boolean> {
  try {
    await netlink.request(NBD_CMD.DISCONNECT, disconnectAttributes(index));
    return true;
  } catch (error) {
    if (error instanceof SystemError && error.errno === ERRNO.EPERM) return false;
    throw error;
  }
}
