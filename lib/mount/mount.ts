/**
 * A hosted backend as a path, a file or a byte slice of this process, until it is closed.
 *
 * @module
 */
import {
  close as closeDescriptor,
  closeAsync,
  O,
  openAsync,
  writeBackAsync,
} from "../../ffi/file.ts";
import { MAP, Mapping, PROT } from "../../ffi/mman.ts";
import {
  DeadlineError,
  errorCode,
  IntegrityError,
  UnsupportedError,
  UsageError,
} from "../backend/errors.ts";
import { attach, type MemoryChoice } from "../device/attach.ts";
import type { Device, DeviceChoice, DeviceKind } from "../device/device.ts";
import type { DeviceHost } from "../host/hosted_part.ts";
import type { MemoryStatistics } from "../host/memory_statistics.ts";

/** What a mount appears as. */
export type MountForm = "path" | "file" | "slice";

/** Where and as what a region is mounted. */
export interface MountOptions {
  /** The device; `auto` unless told. */
  device?: DeviceChoice;
  /** What it appears as; `path` unless told. */
  as?: MountForm;
  /** Where the `fuse` file, or the one under `loop`, appears: a directory; chosen unless told. */
  at?: string;
  /** Refuse writes even where the backend takes them. */
  readOnly?: boolean;
  /** How memory is paged in, of a slice on the `userfault` device. */
  memory?: MemoryChoice;
  /**
   * How long `close` waits for what was written to reach the backend, in ms, before it takes the
   * device away without it and says so; 30 s unless told.
   */
  closeMs?: number;
}

/** A region that is mounted. Disposing of it is closing it. */
export interface Mount extends AsyncDisposable {
  /** Where it appeared: a block device, or a file. A slice on `userfault` has no path. */
  readonly path: string;
  /** The device that put it there, and why that one. */
  readonly device: DeviceKind;
  /** Why that device. */
  readonly reason: string;
  /** Bytes. */
  readonly size: number;
  /** Whether {@linkcode sync} survives the loss of power of the backend's store. */
  readonly durable: boolean;
  /** Whether writes are refused. */
  readonly readOnly: boolean;
  /** Settles when the mount is gone; with the error, if one took it away. */
  readonly closed: Promise<Error | undefined>;
  /** The open file, of a mount as `file`. */
  readonly file: Deno.FsFile;
  /** The bytes, of a mount as `slice`; empty once the mount is closed. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** What was counted of a slice on the `userfault` device. */
  statistics(): Promise<MemoryStatistics>;
  /** Answers when all that was written before is durable in the backend's store. */
  sync(): Promise<void>;
  /**
   * Syncs, takes the device away and closes the backend. Again: waits for the same.
   *
   * Throws `TelemapError` (EBUSY) where the block device is in use, as by a file system on it: then
   * it stays as it is, and may be closed again. Any other error tells what was lost on the way.
   */
  close(): Promise<void>;
}

/** A mount as those see it that mount it. */
export interface HostedMount extends Mount {
  /**
   * Brings to the backend what the kernel has of it, without making it durable there. Missing where the
   * kernel has nothing: memory, which its host looks after itself.
   */
  readonly writeBack: (() => Promise<void>) | undefined;
}

const CLOSE_MS = 30_000;

/**
 * Mounts what a host has. The host belongs to the mount, and is closed with it or where mounting
 * fails. `beforeEnd` is called when the device is gone, and the host is about to be closed: what it
 * throws is thrown by `close`.
 */
export async function mountHost(
  host: DeviceHost,
  options: MountOptions,
  beforeEnd: () => Promise<void> = () => Promise.resolve(),
): Promise<HostedMount> {
  const { as = "path", device: choice = "auto", at, memory } = options;
  let device: Device | undefined;
  try {
    const readOnly = (options.readOnly ?? false) || host.facts.readOnly;
    const attached = await attach(host, { choice, as, readOnly, at, memory });
    device = attached.device;
    const mount = new HostMount(
      host,
      device,
      attached.reason,
      readOnly,
      options.closeMs ?? CLOSE_MS,
      beforeEnd,
    );
    await mount.open(as);
    return mount;
  } catch (error) {
    await device?.detach({ force: true });
    await host.close();
    throw error;
  }
}

class HostMount implements HostedMount {
  readonly reason: string;
  readonly readOnly: boolean;
  readonly #host: DeviceHost;
  readonly #device: Device;
  readonly #closeMs: number;
  readonly #beforeEnd: () => Promise<void>;
  #file: Deno.FsFile | undefined;
  #mapping: Mapping | undefined;
  #closing: Promise<void> | undefined;
  /** Whether the device went away before it was asked to; the kernel wrote back what it could. */
  #isGone = false;
  #isReleased = false;

  constructor(
    host: DeviceHost,
    device: Device,
    reason: string,
    readOnly: boolean,
    closeMs: number,
    beforeEnd: () => Promise<void>,
  ) {
    this.#host = host;
    this.#beforeEnd = beforeEnd;
    this.#device = device;
    this.reason = reason;
    this.readOnly = readOnly;
    this.#closeMs = closeMs;
    void device.gone.then(() => this.#isGone = true);
  }

  get path(): string {
    if (this.#device.memory === undefined) return this.#device.path;
    throw new UsageError("Cannot give a path as the region is memory");
  }

  get device(): DeviceKind {
    return this.#device.kind;
  }

  get #name(): string {
    return this.#device.memory === undefined ? this.path : "the memory";
  }

  get size(): number {
    return this.#host.facts.size;
  }

  get durable(): boolean {
    return this.#host.facts.durable;
  }

  get closed(): Promise<Error | undefined> {
    return this.#device.gone;
  }

  get file(): Deno.FsFile {
    if (this.#file !== undefined) return this.#file;
    throw new UsageError("Cannot give a file as the region is not mounted as one");
  }

  get bytes(): Uint8Array<ArrayBuffer> {
    if (this.#device.memory !== undefined) return this.#device.memory.bytes;
    if (this.#mapping !== undefined) return this.#mapping.bytes;
    throw new UsageError("Cannot give bytes as the region is not mounted as a slice");
  }

  async open(as: MountForm): Promise<void> {
    if (as === "file") {
      this.#file = await Deno.open(this.path, { read: true, write: !this.readOnly });
    } else if (as === "slice" && this.#device.memory === undefined) {
      this.#mapping = await mapPath(this.path, this.size, this.readOnly);
    }
  }

  async statistics(): Promise<MemoryStatistics> {
    if (this.#device.memory !== undefined) return await this.#device.memory.statistics();
    throw new UsageError("Cannot give statistics as the region is not memory");
  }

  async sync(): Promise<void> {
    if (this.#device.memory !== undefined) return await this.#device.memory.push();
    await this.#syncPath();
    await this.#host.flush();
  }

  get writeBack(): (() => Promise<void>) | undefined {
    if (this.readOnly || this.#device.memory !== undefined) return undefined;
    return () => this.#writeBack();
  }

  async #writeBack(): Promise<void> {
    const fd = await openAsync(this.path, O.RDWR);
    if (fd < 0) throw new UnsupportedError(`Cannot open ${this.path} to write it back`);
    try {
      if (!await writeBackAsync(fd)) throw notWritten(this.path, "sync_file_range failed");
    } finally {
      await closeAsync(fd);
    }
  }

  async #syncPath(): Promise<void> {
    if (this.#mapping !== undefined && !this.readOnly && !await this.#mapping.syncAsync()) {
      throw notWritten(this.path, "msync failed");
    }
    if (!this.readOnly) await syncPath(this.path);
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const syncing = this.#isGone ? this.#host.flush() : this.sync();
    const failure = await within(this.#closeMs, syncing, `write ${this.#name} back`);
    this.#release();
    const lost = await this.#detach(this.#isGone || failure !== undefined);
    const unfinished = await this.#beforeEnd().then(() => undefined, (error) => error);
    await this.#host.close();
    const error = failure ?? lost ?? unfinished;
    if (error !== undefined) throw error;
  }

  /** Lets go of what this mount itself uses of the device. */
  #release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    this.#mapping?.unmap();
    this.#file?.close();
  }

  /** Answers with the error of a device that is gone, but did not go well. */
  async #detach(force: boolean): Promise<unknown> {
    try {
      await this.#device.detach({ force });
    } catch (error) {
      if (errorCode(error) !== "EBUSY") return error;
      this.#closing = undefined;
      throw error;
    }
  }
}

/** The error that an operation ended with, or a {@linkcode DeadlineError} where it did not end. */
async function within(
  milliseconds: number,
  operation: Promise<void>,
  what: string,
): Promise<Error | undefined> {
  const { promise, resolve } = Promise.withResolvers<Error | undefined>();
  const timer = setTimeout(() => {
    const seconds = milliseconds / 1000;
    resolve(new DeadlineError(`Cannot ${what} within ${seconds} s: what was not synced is lost`));
  }, milliseconds);
  operation.then(() => resolve(undefined), resolve);
  const error = await promise;
  clearTimeout(timer);
  return error;
}

async function mapPath(path: string, length: number, readOnly: boolean): Promise<Mapping> {
  const fd = await openAsync(path, readOnly ? O.RDONLY : O.RDWR);
  if (fd < 0) throw new UnsupportedError(`Cannot open ${path} to map it`);
  try {
    const prot = readOnly ? PROT.READ : PROT.READ | PROT.WRITE;
    return Mapping.map({ length, prot, flags: MAP.SHARED, fd, subject: path });
  } finally {
    closeDescriptor(fd);
  }
}

async function syncPath(path: string): Promise<void> {
  using file = await Deno.open(path, { read: true, write: true });
  try {
    await file.sync();
  } catch (error) {
    throw notWritten(path, error instanceof Error ? error.message : `${error}`);
  }
}

function notWritten(path: string, why: string): IntegrityError {
  return new IntegrityError(`Cannot write ${path} back: ${why}`, {
    hint: "the backend refused part of it, which is lost; the log of its server says why",
  });
}
