/**
 * Asks the kernel's NBD client to make a device of sockets and to let go of it: by netlink, or by
 * ioctl on /dev/nbdN where netlink does not reach it (older kernels, in a network namespace).
 *
 * Whatever may wait for the device's server runs on another thread, as the server may be fed by this
 * isolate.
 *
 * @module
 */
import { ERRNO, SystemError } from "../../ffi/errno.ts";
import { closeAsync, O, openAsync } from "../../ffi/file.ts";
import {
  connectAttributes,
  connectedIndex,
  deviceControl,
  deviceControlAsync,
  disconnectAttributes,
  NBD_CMD,
  NBD_IOCTL,
  type NbdConfiguration,
  openNbdFamily,
} from "../../ffi/nbd.ts";
import type { GenericNetlink } from "../../ffi/netlink_socket.ts";
import { UnsupportedError } from "../backend/errors.ts";
import { readAttribute } from "./sysfs.ts";

/** How the kernel is asked. */
export type NbdInterface = "netlink" | "ioctl";

/** A device that the kernel made. */
export interface NbdControl {
  /** N of /dev/nbdN. */
  readonly index: number;
  /** Settles when the kernel ended the device by itself; never where it does not tell. */
  readonly ended: Promise<void>;
  /** Has the kernel let go of the sockets; what was in flight fails. Once. */
  disconnect(): Promise<void>;
}

/** Devices that this isolate claims by ioctl: to the kernel, all its claims are one thread's. */
const claimed = new Set<number>();

/** Times that the kernel is asked again for a device of its choice when somebody was faster. */
const RACES_MAX = 16;

/**
 * Makes a device by netlink, or by ioctl where that is asked for or netlink is missing.
 *
 * @throws {UnsupportedError} where the kernel has no NBD client.
 * @throws {SystemError} EPERM without CAP_SYS_ADMIN, EBUSY where the device is in use.
 */
export async function connectNbd(
  configuration: NbdConfiguration,
  via: NbdInterface | undefined,
): Promise<NbdControl> {
  using netlink = via === "ioctl" ? undefined : openNbdFamily();
  if (netlink !== undefined) return await connectByNetlink(netlink, configuration);
  if (via !== "netlink" && readAttribute("/sys/block/nbd0/size") !== undefined) {
    return await connectByIoctl(configuration);
  }
  throw new UnsupportedError("Cannot attach an NBD device: the kernel has no NBD client here", {
    hint: "load it with: modprobe nbd",
  });
}

async function connectByNetlink(
  netlink: GenericNetlink,
  configuration: NbdConfiguration,
): Promise<NbdControl> {
  const attributes = connectAttributes(configuration);
  for (let race = 1;; race++) {
    try {
      const [answer] = await netlink.request(NBD_CMD.CONNECT, attributes);
      return new NetlinkControl(connectedIndex(answer));
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      const beaten = error.errno === ERRNO.EBUSY && configuration.index === undefined;
      if (!beaten || race === RACES_MAX) throw explained(error, configuration.index);
    }
  }
}

class NetlinkControl implements NbdControl {
  readonly index: number;
  readonly ended: Promise<void> = new Promise(() => {});
  /** What the kernel shows of the owner; undefined before Linux 5.14. */
  readonly #owner: string | undefined;

  constructor(index: number) {
    this.index = index;
    this.#owner = this.#shownOwner();
  }

  async disconnect(): Promise<void> {
    // Somebody may have disconnected it, and somebody else may have it since.
    if (this.#shownOwner() !== this.#owner) return;
    using netlink = openNbdFamily();
    await netlink?.request(NBD_CMD.DISCONNECT, disconnectAttributes(this.index));
  }

  #shownOwner(): string | undefined {
    return readAttribute(`/sys/block/nbd${this.index}/backend`);
  }
}

async function connectByIoctl(configuration: NbdConfiguration): Promise<NbdControl> {
  const { index, fd } = await claimDevice(configuration);
  const set = (request: number, value: number, what: string) =>
    deviceControl(fd, request, value, `${what} of /dev/nbd${index}`);
  try {
    for (const socket of configuration.sockets.slice(1)) {
      set(NBD_IOCTL.SET_SOCK, socket, "set a socket");
    }
    set(NBD_IOCTL.SET_BLKSIZE, configuration.blockSize, "set the block size");
    const blocks = configuration.size / configuration.blockSize;
    set(NBD_IOCTL.SET_SIZE_BLOCKS, blocks, "set the size");
    set(NBD_IOCTL.SET_FLAGS, configuration.serverFlags, "set the flags");
    set(NBD_IOCTL.SET_TIMEOUT, configuration.timeout, "set the timeout");
  } catch (error) {
    await releaseDevice(index, fd);
    throw error;
  }
  return new IoctlControl(index, fd);
}

/** Opens a free device, or that which is asked for, and makes it ours with the first socket. */
async function claimDevice(
  configuration: NbdConfiguration,
): Promise<{ index: number; fd: number }> {
  const asked = configuration.index;
  for (let index = asked ?? 0; asked === undefined || index === asked; index++) {
    const size = readAttribute(`/sys/block/nbd${index}/size`);
    if (size === undefined) break;
    if (size !== "0" || readAttribute(`/sys/block/nbd${index}/pid`) !== undefined) continue;
    if (claimed.has(index)) continue;
    claimed.add(index);
    const fd = await claimByOpening(index, configuration.sockets[0]!);
    if (fd !== undefined) return { index, fd };
    claimed.delete(index);
  }
  const busy = new SystemError({ syscall: "attach an NBD device", errno: ERRNO.EBUSY });
  throw explained(busy, asked);
}

/** Opens a device and gives it a first socket; undefined where another process has it. */
async function claimByOpening(index: number, socket: number): Promise<number | undefined> {
  const path = `/dev/nbd${index}`;
  const fd = await openAsync(path, O.RDONLY);
  if (fd < 0) return undefined;
  try {
    deviceControl(fd, NBD_IOCTL.SET_SOCK, socket, `set a socket of ${path}`);
    return fd;
  } catch (error) {
    await closeAsync(fd);
    if (error instanceof SystemError && error.errno === ERRNO.EBUSY) return undefined;
    claimed.delete(index);
    throw error instanceof SystemError ? explained(error, index) : error;
  }
}

class IoctlControl implements NbdControl {
  readonly index: number;
  readonly ended: Promise<void>;
  readonly #fd: number;

  constructor(index: number, fd: number) {
    this.index = index;
    this.#fd = fd;
    this.ended = deviceControlAsync(fd, NBD_IOCTL.DO_IT, 0).then(() => {});
  }

  async disconnect(): Promise<void> {
    await deviceControlAsync(this.#fd, NBD_IOCTL.DISCONNECT, 0);
    await this.ended;
    await releaseDevice(this.index, this.#fd);
  }
}

async function releaseDevice(index: number, fd: number): Promise<void> {
  await deviceControlAsync(fd, NBD_IOCTL.CLEAR_SOCK, 0);
  await closeAsync(fd);
  claimed.delete(index);
}

/** The same error, with the device and what to do. */
function explained(error: SystemError, index: number | undefined): SystemError {
  const hints: Record<number, string> = {
    [ERRNO.EPERM]: "this needs root (CAP_SYS_ADMIN)",
    [ERRNO.EBUSY]: index === undefined
      ? "all devices are in use; load the module with a larger nbds_max"
      : "it is in use; leave the choice to the kernel, or disconnect it with: nbd-client -d",
  };
  return new SystemError({
    syscall: "attach an NBD device",
    errno: error.errno,
    subject: index === undefined ? undefined : `/dev/nbd${index}`,
    hint: hints[error.errno] ?? error.hint,
  });
}
