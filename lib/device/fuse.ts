/**
 * The `fuse` device: a region as one regular file in a mount of our own.
 *
 * The file is served by a Worker of this process, so nothing here that may wait for the file runs on
 * this thread: it could be the one that a backend of this isolate answers on.
 *
 * @module
 */
import { ERRNO, SystemError } from "../../ffi/errno.ts";
import { close, closeAsync, fsyncAsync, O, openAsync } from "../../ffi/file.ts";
import { openFuse } from "../../ffi/fuse.ts";
import { UnsupportedError } from "../backend/errors.ts";
import { deviceAt, mount, unmount, unmountAtExit } from "../fuse/mount.ts";
import { within } from "./deadline.ts";
import type { Device, Probe } from "./device.ts";
import { FLUSH_MS, lostWrites } from "./lost_writes.ts";
import { type MountPoint, prepareMountPoint } from "./mount_point.ts";
import { ownerTag } from "./owner.ts";
import { commandExists, hasAdminCapability } from "./privilege.ts";
import { writeAttribute } from "./sysfs.ts";
import { type Watchdog, watchMount } from "./watchdog.ts";

/** What is to appear in the mount. */
export interface ServedFile {
  /** Its name. */
  fileName: string;
  /** Whether it may only be read. */
  readOnly: boolean;
}

/** How {@linkcode attachFuse} attaches. */
export interface AttachFuseOptions {
  /**
   * Begins to serve a `/dev/fuse` descriptor in another thread and answers when it is served. It
   * takes the descriptor over unless it throws. `onDetached` is to be called when the file system is
   * gone, with the error if one took it away.
   */
  serve(
    fd: number,
    file: ServedFile,
    onDetached: (error: Error | undefined) => void,
  ): Promise<void>;
  /** Whether the file may only be read. */
  readOnly: boolean;
  /** Name of the file; `region` unless told. */
  fileName?: string | undefined;
  /** Where to mount (see {@linkcode prepareMountPoint}); chosen unless told. */
  at?: string | undefined;
  /** Let other users in, as far as the mode of the file lets them; not unless told. */
  allowOther?: boolean | undefined;
}

/** A region as a file. */
export interface FuseDevice extends Device {
  /** The directory of the mount. */
  readonly mountPoint: string;
}

const READ_AHEAD_KIB = 4096;
/** How long a server may take for the first look at its file. */
const START_MS = 10_000;
/** How long a server may take to see that its file system is gone. */
const END_MS = 2000;

/**
 * Mounts a file system with one file, and answers when the file can be opened.
 *
 * @throws {UsageError} `at` cannot be mounted on.
 * @throws {SystemError | TelemapError} mounting is not permitted, or serving failed; nothing is left
 * behind then.
 */
export async function attachFuse(options: AttachFuseOptions): Promise<FuseDevice> {
  const { readOnly, fileName = "region", allowOther = false } = options;
  const mountPoint = prepareMountPoint(options.at);
  let fd: number;
  try {
    const source = ownerTag();
    fd = await mount({ mountPoint: mountPoint.path, source, readOnly, allowOther });
  } catch (error) {
    mountPoint.remove();
    throw error;
  }
  const gone = Promise.withResolvers<Error | undefined>();
  try {
    await options.serve(fd, { fileName, readOnly }, gone.resolve);
  } catch (error) {
    await unmount(mountPoint.path, { force: true });
    close(fd);
    mountPoint.remove();
    throw error;
  }
  const device = new MountedFile(mountPoint, fileName, readOnly, gone.promise);
  await device.start();
  return device;
}

class MountedFile implements FuseDevice {
  readonly kind = "fuse";
  readonly path: string;
  readonly mountPoint: string;
  readonly gone: Promise<Error | undefined>;
  readonly #directory: MountPoint;
  readonly #readOnly: boolean;
  readonly #watchdog: Watchdog | undefined;
  /** An orderly end of this process leaves nothing for the watchdog to do. */
  readonly #atExit = () => {
    unmountAtExit(this.mountPoint);
    this.#directory.remove();
  };
  #detaching: Promise<void> | undefined;

  constructor(
    directory: MountPoint,
    fileName: string,
    readOnly: boolean,
    gone: Promise<Error | undefined>,
  ) {
    this.#directory = directory;
    this.mountPoint = directory.path;
    this.path = `${directory.path}/${fileName}`;
    this.#readOnly = readOnly;
    this.gone = gone;
    this.#watchdog = watchMount(this.mountPoint);
    globalThis.addEventListener("unload", this.#atExit);
  }

  /** Waits until the file is there. */
  async start(): Promise<void> {
    // Refused to users without privilege: then the kernel's default of 128 KiB stays.
    const bdi = `/sys/class/bdi/${deviceAt(this.mountPoint)}`;
    writeAttribute(`${bdi}/read_ahead_kb`, `${READ_AHEAD_KIB}`);
    const fd = await within(START_MS, openAsync(this.path, O.RDONLY));
    if (fd !== undefined && fd >= 0) return void await closeAsync(fd);
    await this.detach({ force: true });
    throw new UnsupportedError(`Cannot open ${this.path}: its server did not answer`, {
      hint: "telemap needs Linux 5.4 or later",
    });
  }

  detach(options: { force?: boolean } = {}): Promise<void> {
    if (options.force && this.#detaching !== undefined) return this.#giveUp(this.#detaching);
    return this.#detaching ??= this.#detach(options.force ?? false);
  }

  async #detach(force: boolean): Promise<void> {
    const flushed = force || this.#readOnly || await within(FLUSH_MS, this.#flush());
    const clean = !force && flushed === true &&
      await within(FLUSH_MS, unmount(this.mountPoint)) === true;
    if (!clean) await this.#break();
    await within(END_MS, this.gone);
    this.#directory.remove();
    globalThis.removeEventListener("unload", this.#atExit);
    await this.#watchdog?.dismiss();
    if (flushed !== true) throw lostWrites(this.path, flushed === undefined);
  }

  /** Ends what a detach that is under way waits for. */
  async #giveUp(detaching: Promise<void>): Promise<void> {
    await this.#break();
    await detaching.catch(() => {});
  }

  async #break(): Promise<void> {
    if (deviceAt(this.mountPoint) === undefined) return;
    await unmount(this.mountPoint, { force: true });
  }

  async #flush(): Promise<boolean> {
    const fd = await openAsync(this.path, O.RDONLY);
    if (fd < 0) return false;
    const flushed = await fsyncAsync(fd);
    await closeAsync(fd);
    return flushed;
  }
}

/** Whether this user can mount a file here. */
export function probeFuse(): Probe {
  const name = "fuse";
  const missing = (reason: string, fix: string): Probe => ({ name, available: false, reason, fix });
  try {
    close(openFuse());
  } catch (error) {
    if (error instanceof SystemError && error.errno === ERRNO.EACCES) {
      return missing("this user may not open /dev/fuse", "chmod a+rw /dev/fuse, or run as root");
    }
    return missing(
      "the kernel has no FUSE, or /dev/fuse is missing",
      "modprobe fuse; in a container, pass the device: --device /dev/fuse",
    );
  }
  if (hasAdminCapability()) return { name, available: true, reason: "this user may mount" };
  if (commandExists("fusermount3") || commandExists("fusermount")) {
    return { name, available: true, reason: "fusermount3 mounts for this user" };
  }
  return missing(
    "this user may not mount, and fusermount3 is not installed",
    "install the package fuse3, run as root, or give a container --cap-add SYS_ADMIN",
  );
}
