/**
 * The `loop` device: a block device over the file of a FUSE mount, for hosts without NBD.
 *
 * The loop driver reads and writes the file with direct I/O, so that pages are cached once, by the
 * block device. Its FLUSH is an fsync of the file, its discard a hole punched into it: both reach the
 * backend.
 *
 * The device is not kept open here. A process that is killed closes its descriptors one after another;
 * closing the last one of a block device writes dirty pages, and were that before `/dev/fuse` is closed
 * it would wait for a server that is dead: for ever. So the device goes on without us, and one whose
 * owner was killed is found by its file (see `stale.ts`).
 *
 * @module
 */
import { close, closeAsync, fsyncAsync, O, open, openAsync } from "../../ffi/file.ts";
import {
  bindLoop,
  blockDeviceSize,
  freeLoopDevice,
  LO_FLAGS,
  unbindLoop,
  unbindLoopHere,
} from "../../ffi/loop.ts";
import { TelemapError, UsageError } from "../backend/errors.ts";
import { within } from "./deadline.ts";
import type { Device, Probe } from "./device.ts";
import { attachFuse, type AttachFuseOptions, type FuseDevice, probeFuse } from "./fuse.ts";
import { FLUSH_MS, lostWrites } from "./lost_writes.ts";
import { hasAdminCapability } from "./privilege.ts";
import { readAttribute } from "./sysfs.ts";

/** How {@linkcode attachLoop} attaches. */
export interface AttachLoopOptions extends AttachFuseOptions {
  /** Bytes of the region: a multiple of 512. */
  size: number;
  /** Logical block size: 4096 where the size is a multiple of that, else 512, unless told. */
  blockSize?: 512 | 1024 | 2048 | 4096;
}

/** A region as a loop device. */
export interface LoopDevice extends Device {
  /** The file under it. */
  readonly file: FuseDevice;
  /** Whether the file's pages are not cached a second time. */
  readonly directIo: boolean;
}

const SECTOR = 512;
/** How often a free device may be taken by somebody else first. */
const TRIES = 16;
/** How long somebody may hold the device open when it is detached (udev looks at it, say). */
const RELEASE_MS = 5000;
const POLL_MS = 20;

/**
 * Mounts a file as {@linkcode attachFuse} does and binds it to a free loop device.
 *
 * @throws {UsageError} the size is no multiple of the block size.
 * @throws {SystemError | TelemapError} it is not permitted, or the kernel refuses; nothing is left
 * behind then.
 */
export async function attachLoop(options: AttachLoopOptions): Promise<LoopDevice> {
  const { size, readOnly } = options;
  const blockSize = options.blockSize ?? (size % 4096 === 0 ? 4096 : SECTOR);
  if (size <= 0 || size % blockSize !== 0) {
    throw new UsageError(
      `Cannot make a block device of ${size} bytes as that is no multiple of ${blockSize}`,
      { hint: "use the fuse device, or give the region another size" },
    );
  }
  const file = await attachFuse(options);
  try {
    const backing = await openBacking(file.path, readOnly);
    try {
      const path = await bindFree(backing, { blockSize, readOnly, fileName: file.path });
      return new BoundLoop(path, file, readOnly);
    } finally {
      await closeAsync(backing);
    }
  } catch (error) {
    await file.detach({ force: true });
    throw error;
  }
}

async function openBacking(path: string, readOnly: boolean): Promise<number> {
  const fd = await openAsync(path, (readOnly ? O.RDONLY : O.RDWR) | O.DIRECT);
  if (fd >= 0) return fd;
  throw new TelemapError("EIO", `Cannot open ${path} for direct I/O`);
}

interface Binding {
  blockSize: number;
  readOnly: boolean;
  fileName: string;
}

/** Binds whichever device is free; answers its path. */
async function bindFree(backing: number, binding: Binding): Promise<string> {
  const { blockSize, readOnly, fileName } = binding;
  const flags = LO_FLAGS.DIRECT_IO | (readOnly ? LO_FLAGS.READ_ONLY : 0);
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const path = `/dev/loop${freeLoopDevice()}`;
    const device = await openAsync(path, readOnly ? O.RDONLY : O.RDWR);
    if (device < 0) {
      throw new TelemapError("EACCES", `Cannot open ${path}`, {
        hint: "run as root; in a container, see that the device is passed",
      });
    }
    const bound = await bindLoop(device, { backing, blockSize, flags, fileName });
    const size = bound ? blockDeviceSize(device) : 0;
    await closeAsync(device);
    if (size > 0) return path;
    // Nobody else has it, so it was not a race that made the kernel refuse.
    if (boundFile(path) === undefined) {
      throw new TelemapError("EINVAL", `Cannot bind ${fileName} to ${path}: the kernel refuses`, {
        hint: "telemap needs Linux 5.8 or later (LOOP_CONFIGURE)",
      });
    }
  }
  throw new TelemapError("EBUSY", `Cannot find a free loop device in ${TRIES} tries`, {
    hint: "something else takes each one first; try again",
  });
}

class BoundLoop implements LoopDevice {
  readonly kind = "loop";
  readonly path: string;
  readonly file: FuseDevice;
  readonly directIo: boolean;
  readonly gone: Promise<Error | undefined>;
  readonly #readOnly: boolean;
  /** Runs after that of the file, so that letting go of the device waits for nothing. */
  readonly #atExit = () => {
    if (!this.#isOurs()) return;
    const device = open(this.path, O.RDONLY);
    unbindLoopHere(device);
    close(device);
  };
  #detaching: Promise<void> | undefined;

  constructor(path: string, file: FuseDevice, readOnly: boolean) {
    this.path = path;
    this.file = file;
    this.directIo = loopAttribute(path, "dio") === "1";
    this.gone = file.gone;
    this.#readOnly = readOnly;
    globalThis.addEventListener("unload", this.#atExit);
  }

  async detach(options: { force?: boolean } = {}): Promise<void> {
    if (options.force) {
      // Without its server, whatever waits for the device gets an error.
      await this.file.detach({ force: true });
    }
    await (this.#detaching ??= this.#detach(options.force ?? false));
  }

  async #detach(force: boolean): Promise<void> {
    let lost: TelemapError | undefined;
    try {
      if (force) await this.#drop();
      else lost = await this.#letGo();
    } catch (error) {
      this.#detaching = undefined;
      throw error;
    }
    await this.file.detach();
    globalThis.removeEventListener("unload", this.#atExit);
    if (lost !== undefined) throw lost;
  }

  /**
   * Flushes and lets go of the device, unless somebody uses it, which throws; answers an error where
   * something that was written is lost.
   */
  async #letGo(): Promise<TelemapError | undefined> {
    if (!this.#isOurs()) return undefined;
    const access = this.#readOnly ? O.RDONLY : O.RDWR;
    // Exclusive: refused while it is mounted, and nobody can mount it from then on.
    const device = await within(RELEASE_MS, openAsync(this.path, access | O.EXCL));
    if (device === undefined || device < 0) throw this.#busy();
    const flushed = this.#readOnly || await within(FLUSH_MS, fsyncAsync(device));
    if (flushed === undefined) await this.file.detach({ force: true });
    await unbindLoop(device);
    await closeAsync(device);
    if (!await this.#isFree()) throw this.#busy();
    return flushed === true ? undefined : lostWrites(this.path, flushed === undefined);
  }

  /** Lets go of the device as soon as nobody uses it, without waiting for that. */
  async #drop(): Promise<void> {
    const device = await within(RELEASE_MS, openAsync(this.path, O.RDONLY));
    if (device === undefined || device < 0) return;
    await unbindLoop(device);
    await within(RELEASE_MS, closeAsync(device));
  }

  async #isFree(): Promise<boolean> {
    const deadline = performance.now() + RELEASE_MS;
    while (this.#isOurs()) {
      if (performance.now() > deadline) return false;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    return true;
  }

  /** Whether the device still is bound to our file, whose mount may have been taken away. */
  #isOurs(): boolean {
    const { path, mountPoint } = this.file;
    const bound = boundFile(this.path);
    return bound === path || bound === path.slice(mountPoint.length);
  }

  #busy(): TelemapError {
    return new TelemapError("EBUSY", `Cannot detach ${this.path} as it is in use`, {
      hint:
        `unmount what is on it (findmnt ${this.path}), or force it and lose what is not written`,
    });
  }
}

/** The file that a loop device is bound to, as the kernel names it; undefined for one that is free. */
export function boundFile(path: string): string | undefined {
  return loopAttribute(path, "backing_file");
}

function loopAttribute(path: string, name: string): string | undefined {
  return readAttribute(`/sys/block/${path.slice("/dev/".length)}/loop/${name}`);
}

/** Whether this user can attach a loop device here. */
export function probeLoop(): Probe {
  const name = "loop";
  const fuse = probeFuse();
  if (!fuse.available) return { ...fuse, name };
  const missing = (reason: string, fix: string): Probe => ({ name, available: false, reason, fix });
  if (!hasAdminCapability()) {
    return missing("only root may bind loop devices", "run as root, or use the fuse device");
  }
  try {
    const path = `/dev/loop${freeLoopDevice()}`;
    Deno.statSync(path);
    return { name, available: true, reason: `${path} is free` };
  } catch (error) {
    const reason = error instanceof Error ? error.message : `${error}`;
    const fix = "modprobe loop; in a container, pass the loop devices: --privileged";
    return missing(reason, fix);
  }
}
