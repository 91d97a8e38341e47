/**
 * The `nbd` device: a region as a block device of the kernel's NBD client.
 *
 * The kernel gets one end of each of some socket pairs; the other ends are served by a Worker of this
 * process. So nothing here that may wait for the device runs on this thread: it could be the one
 * that a backend of this isolate answers on.
 *
 * @module
 */
import { close, closeAsync, fsyncAsync, O, openAsync } from "../../ffi/file.ts";
import { NBD_FLAG } from "../../ffi/nbd.ts";
import { UeventSocket } from "../../ffi/netlink_socket.ts";
import { setSendBuffer, shutdown, socketpair } from "../../ffi/socket.ts";
import { TelemapError, UnsupportedError, UsageError } from "../backend/errors.ts";
import { within } from "./deadline.ts";
import type { Device } from "./device.ts";
import { FLUSH_MS, lostWrites } from "./lost_writes.ts";
import { connectNbd, type NbdControl, type NbdInterface } from "./nbd_control.ts";
import { type ReadySignal, untilReady } from "./nbd_ready.ts";
import { receiversStart } from "./nbd_receivers.ts";
import { ownerTag } from "./owner.ts";
import { readAttribute, writeAttribute } from "./sysfs.ts";

/** How {@linkcode attachNbd} attaches. */
export interface AttachNbdOptions {
  /** Bytes of the region, a multiple of 512. */
  size: number;
  /** Whether it may only be read. */
  readOnly: boolean;
  /**
   * Begins to serve NBD's transmission phase on a descriptor, in another thread, and answers when it
   * is served. It takes the descriptor over unless it throws. `flags` are the transmission flags that
   * the kernel is told; `onDetached` is to be called when the connection is gone.
   */
  serve(fd: number, flags: number, onDetached: () => void): Promise<void>;
  /** Connections between kernel and server, which it uses in parallel; 2 unless told. */
  connections?: number;
  /** N of /dev/nbdN; a free device unless told. */
  index?: number;
  /** Netlink where the kernel has it, unless told. */
  via?: NbdInterface;
  /** What tells that the device is ready; `sysfs` unless told. */
  ready?: ReadySignal;
  /** Seconds after which the kernel gives a request up; an hour unless told. */
  requestTimeout?: number;
  /** Bytes that the kernel reads ahead; 4 MiB unless told. */
  readAhead?: number;
  /** Bytes of the largest request; 1 MiB unless told. */
  maxRequest?: number;
}

/** A region as a block device. */
export interface NbdDevice extends Device {
  /** N of /dev/nbdN. */
  readonly index: number;
  /** Bytes that are read and written at once. */
  readonly blockSize: number;
}

const REQUEST_TIMEOUT = 3600;
const READ_AHEAD = 4 << 20;
const MAX_REQUEST = 1 << 20;
const CONNECTIONS = 2;
/** How often to attach until the kernel reads all connections; the last time by one alone. */
const ATTEMPTS = 4;
/** What a Unix socket may hold of requests on their way; the default holds less than one. */
const SEND_BUFFER = 2 << 20;
/** How long the kernel may take to say goodbye to a server before that is cut off, in ms. */
const DISCONNECT_MS = 5000;
/** How long somebody may hold the device open when it is detached (udev looks at it, say), in ms. */
const RELEASE_MS = 5000;
const POLL_MS = 5;

/**
 * Attaches a region, and answers when the block device has its size.
 *
 * @throws {UsageError} the size is not that of a block device.
 * @throws {UnsupportedError} the kernel has no NBD client (`modprobe nbd`).
 * @throws {SystemError} EPERM without CAP_SYS_ADMIN, EBUSY where the device is in use; nothing is
 * left behind then.
 */
export async function attachNbd(options: AttachNbdOptions): Promise<NbdDevice> {
  const { connections = CONNECTIONS } = options;
  for (let attempt = 1; attempt < ATTEMPTS; attempt++) {
    const device = await attachOnce(options, connections);
    if (connections === 1 || await receiversStart(device.index, connections)) return device;
    await device.detach({ force: true });
  }
  return await attachOnce(options, 1);
}

async function attachOnce(options: AttachNbdOptions, connections: number): Promise<BlockDevice> {
  const blockSize = blockSizeFor(options.size);
  const flags = transmissionFlags(options.readOnly);
  const links = await Links.open(connections, flags, options.serve);
  let control: NbdControl | undefined;
  try {
    // Listens before it connects, so that no announcement is missed.
    using events = options.ready === "uevent" ? new UeventSocket() : undefined;
    control = await connectNbd({
      ...(options.index === undefined ? {} : { index: options.index }),
      size: options.size,
      blockSize,
      timeout: options.requestTimeout ?? REQUEST_TIMEOUT,
      // A lost connection never comes back: its server is a Worker of this process.
      deadConnectionTimeout: 0,
      serverFlags: flags,
      sockets: links.kernelEnds,
      identifier: ownerTag(),
    }, options.via);
    await untilReady(control, options.size, events);
    checkNode(control.index);
    tune(control.index, options);
    return new BlockDevice(control, links, blockSize, options.readOnly);
  } catch (error) {
    links.cut();
    await control?.disconnect();
    links.close();
    throw error;
  }
}

/** The largest block size up to a page that divides a size. */
function blockSizeFor(size: number): number {
  if (size > 0 && size % 4096 === 0) return 4096;
  if (size > 0 && size % 512 === 0) return 512;
  throw new UsageError(`Cannot attach ${size} bytes as a block device`, {
    hint: "its size must be a multiple of 512, larger than 0",
  });
}

/** What the kernel is told: that it may use several connections, and has to flush. */
function transmissionFlags(readOnly: boolean): number {
  const flags = NBD_FLAG.HAS_FLAGS | NBD_FLAG.SEND_FLUSH | NBD_FLAG.SEND_FUA |
    NBD_FLAG.CAN_MULTI_CONN;
  if (readOnly) return flags | NBD_FLAG.READ_ONLY;
  return flags | NBD_FLAG.SEND_TRIM | NBD_FLAG.SEND_WRITE_ZEROES;
}

function tune(index: number, options: AttachNbdOptions): void {
  const queue = `/sys/block/nbd${index}/queue`;
  const { readAhead = READ_AHEAD, maxRequest = MAX_REQUEST } = options;
  writeAttribute(`${queue}/max_sectors_kb`, `${maxRequest / 1024}`);
  writeAttribute(`${queue}/read_ahead_kb`, `${readAhead / 1024}`);
}

/** The kernel makes the node in its own /dev; that of a container may be another. */
function checkNode(index: number): void {
  const path = `/dev/nbd${index}`;
  try {
    Deno.lstatSync(path);
  } catch {
    const numbers = readAttribute(`/sys/block/nbd${index}/dev`)?.replace(":", " ");
    throw new UnsupportedError(`Cannot find ${path} of the device that was attached`, {
      hint: `in a container, pass the host's /dev, or: mknod ${path} b ${numbers}`,
    });
  }
}

/** The socket pairs between kernel and server. */
class Links {
  /** The ends that are given to the kernel, which makes references of its own. */
  readonly kernelEnds: number[] = [];
  /** Settles when the server has lost all connections. */
  readonly gone: Promise<void>;
  readonly #gone = Promise.withResolvers<void>();
  #alive = 0;

  private constructor() {
    this.gone = this.#gone.promise;
  }

  static async open(
    count: number,
    flags: number,
    serve: AttachNbdOptions["serve"],
  ): Promise<Links> {
    const links = new Links();
    try {
      for (let made = 0; made < count; made++) await links.#add(flags, serve);
    } catch (error) {
      links.cut();
      links.close();
      throw error;
    }
    return links;
  }

  async #add(flags: number, serve: AttachNbdOptions["serve"]): Promise<void> {
    const [kernelEnd, serverEnd] = socketpair();
    this.kernelEnds.push(kernelEnd);
    for (const end of [kernelEnd, serverEnd]) setSendBuffer(end, SEND_BUFFER);
    try {
      await serve(serverEnd, flags, () => this.#lost());
      this.#alive++;
    } catch (error) {
      close(serverEnd);
      throw error;
    }
  }

  #lost(): void {
    if (--this.#alive === 0) this.#gone.resolve();
  }

  /** Ends all connections at once, whoever waits on them. */
  cut(): void {
    this.kernelEnds.forEach(shutdown);
  }

  close(): void {
    this.kernelEnds.splice(0).forEach(close);
  }
}

class BlockDevice implements NbdDevice {
  readonly kind = "nbd";
  readonly index: number;
  readonly path: string;
  readonly blockSize: number;
  readonly gone: Promise<Error | undefined>;
  readonly #control: NbdControl;
  readonly #links: Links;
  readonly #readOnly: boolean;
  readonly #forced = Promise.withResolvers<undefined>();
  #isForced = false;
  #disconnecting: Promise<void> | undefined;
  #detaching: Promise<void> | undefined;

  constructor(control: NbdControl, links: Links, blockSize: number, readOnly: boolean) {
    this.index = control.index;
    this.path = `/dev/nbd${control.index}`;
    this.blockSize = blockSize;
    this.#control = control;
    this.#links = links;
    this.#readOnly = readOnly;
    this.gone = this.#watch();
  }

  async detach(options: { force?: boolean } = {}): Promise<void> {
    if (options.force) return await this.#drop();
    await (this.#detaching ??= this.#disconnecting === undefined ? this.#detach() : this.#drop());
  }

  /** Answers when the connections are gone, and has the kernel fail what was in flight. */
  async #watch(): Promise<Error | undefined> {
    await Promise.race([this.#links.gone, this.#control.ended]);
    if (this.#disconnecting !== undefined) return undefined;
    await this.#disconnect().catch(() => {});
    return new TelemapError("ENODEV", `Cannot use ${this.path} any more: its connections ended`, {
      hint: "its server failed, or somebody disconnected it",
    });
  }

  async #detach(): Promise<void> {
    const device = await this.#claim();
    const flushing = this.#readOnly ? Promise.resolve(true) : fsyncAsync(device);
    const flushed = await within(FLUSH_MS, this.#unlessForced(flushing));
    if (flushed === undefined) this.#links.cut();
    await this.#disconnect();
    // Without its connections, what a flush still waits for fails.
    await flushing;
    await closeAsync(device);
    this.#links.close();
    const free = await this.#isFree();
    if (this.#isForced) throw this.#cancelled();
    if (flushed !== true) throw lostWrites(this.path, flushed === undefined);
    if (!free) throw this.#busy("some program still has it open");
  }

  /** Opens the device so that nobody can mount it; throws where somebody has. */
  async #claim(): Promise<number> {
    const opening = openAsync(this.path, O.RDONLY | O.EXCL);
    const device = await within(RELEASE_MS, this.#unlessForced(opening));
    if (device !== undefined && device >= 0) return device;
    opening.then((late) => late >= 0 ? closeAsync(late) : undefined);
    this.#detaching = undefined;
    if (this.#isForced) throw this.#cancelled();
    throw this.#busy(`unmount what is on it (findmnt ${this.path}), or force it`);
  }

  /** Lets go of the device whoever uses it; what is in flight or not written yet fails. */
  async #drop(): Promise<void> {
    this.#isForced = true;
    this.#forced.resolve(undefined);
    this.#links.cut();
    await this.#disconnect();
    this.#links.close();
    await this.#isFree();
  }

  #disconnect(): Promise<void> {
    return this.#disconnecting ??= this.#letGo();
  }

  async #letGo(): Promise<void> {
    const asked = this.#control.disconnect();
    const answered = await within(DISCONNECT_MS, asked.then(() => true));
    if (answered) return;
    // The goodbye itself waits where a server takes nothing any more.
    this.#links.cut();
    await asked;
  }

  async #isFree(): Promise<boolean> {
    const deadline = performance.now() + RELEASE_MS;
    const block = `/sys/block/nbd${this.index}`;
    while (readAttribute(`${block}/pid`) !== undefined || readAttribute(`${block}/size`) !== "0") {
      if (performance.now() > deadline) return false;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    return true;
  }

  #unlessForced<T>(promise: Promise<T>): Promise<T | undefined> {
    return Promise.race([promise, this.#forced.promise]);
  }

  #cancelled(): TelemapError {
    return new TelemapError("ECANCELED", `Cannot write ${this.path} back: detached by force`, {
      hint: "what was not synced is lost",
    });
  }

  #busy(hint: string): TelemapError {
    return new TelemapError("EBUSY", `Cannot detach ${this.path} as it is in use`, { hint });
  }
}
