/**
 * Memory of this program that a handler in another process pages in: `telemap uffd`.
 *
 * @module
 */
import { close as closeDescriptor } from "../../ffi/file.ts";
import { MADV, Mapping, pageSize } from "../../ffi/mman.ts";
import { openUserfault, UFFD_FEATURE } from "../../ffi/userfault_open.ts";
import { UFFD_REGISTER, Userfault } from "../../ffi/userfaultfd.ts";
import { ConnectionError, UsageError } from "../backend/errors.ts";
import { HANDLER_STATES, type HandlerLoss, type HandlerState } from "./handler_link.ts";
import type { LinkCommand, LinkMessage, LinkOptions } from "./handler_link_worker.ts";

/** What {@linkcode registerRegion} registers, and with whom. */
export interface RegisterRegionOptions {
  /** Bytes of the memory, 1 or more. */
  size: number;
  /** Where its content begins in the handler's region, a multiple of the page size; 0 unless told. */
  offset?: number;
  /** The handler's socket: a path, or `@name` in the abstract namespace. */
  socket: string;
  /**
   * What becomes of touches of missing pages when the handler is gone. With `wait` (unless told) they
   * wait until there is a handler at the socket again, whoever started it; with `poison` they get
   * SIGBUS, which ends the process. Neither ever sees zeroes in place of data.
   */
  onHandlerLoss?: HandlerLoss;
  /** Called when the handler is lost or there again, as soon as this isolate runs. */
  onState?: (state: RegionState, reason: string | undefined) => void;
  /** How long a handler may take to answer, in ms; 10 s unless told. */
  answerMs?: number;
}

/**
 * How the memory is doing: `attached` while a handler pages it in; `lost` while missing pages wait
 * for one; `poisoned` once a touch of a missing page is SIGBUS; `closed`.
 */
export type RegionState = "attached" | "lost" | "poisoned" | "closed";

/** Memory that a handler pages in. Disposing of it is closing it. */
export interface RegisteredRegion extends AsyncDisposable {
  /**
   * The bytes; empty once closed. What is written stays in this memory, nobody takes it to the
   * handler's region. Where the host permits userfaultfd in user mode only (see `telemap doctor`), a
   * system call that touches a missing page fails with EFAULT: copy the bytes first.
   */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** How it is doing, up to date even where this isolate was held up by a touch all the while. */
  readonly state: RegionState;
  /** Unmaps the memory, which nobody may touch at the time, and lets the handler go. Again: waits. */
  close(): Promise<void>;
}

const ANSWER_MS = 10_000;

/**
 * Maps memory, and has a handler in another process page it in from its region.
 *
 * ```ts ignore
 * // telemap uffd --socket /run/region.sock https://example.org/image.bin
 * await using region = await registerRegion({ size: 64 << 20, socket: "/run/region.sock" });
 * console.log(region.bytes[12345]);
 * ```
 *
 * @throws {UsageError} for a size or offset that cannot be.
 * @throws {ConnectionError} there is no handler at the socket, or it refused.
 * @throws {SystemError} userfaultfd is not permitted, or there is no memory.
 * @throws {Error} `UserfaultFeatureError` where the kernel cannot poison (Linux 6.6) and is to.
 */
export async function registerRegion(options: RegisterRegionOptions): Promise<RegisteredRegion> {
  const { size, offset = 0, socket, onHandlerLoss: onLoss = "wait" } = options;
  const page = pageSize();
  checkOptions(size, offset, page);
  const required = onLoss === "poison" ? UFFD_FEATURE.POISON : 0;
  const { fd } = openUserfault({ required });
  let mapping: Mapping | undefined;
  try {
    mapping = mapMemory(size, page);
    new Userfault(fd).register(mapping.address, mapping.length, UFFD_REGISTER.MISSING);
    const region = { address: mapping.address, size: mapping.length, offset, pageSize: page };
    const answerMs = options.answerMs ?? ANSWER_MS;
    const link = new LinkWorker({ socket, uffd: fd, region, onLoss, answerMs });
    const registered = new Registered(link, fd, mapping, size, options.onState);
    await registered.open(socket);
    return registered;
  } catch (error) {
    mapping?.unmap();
    closeDescriptor(fd);
    throw error;
  }
}

function checkOptions(size: number, offset: number, page: number): void {
  if (!(Number.isSafeInteger(size) && size > 0)) {
    throw new UsageError(`Cannot register ${size} bytes of memory`);
  }
  if (Number.isSafeInteger(offset) && offset >= 0 && offset % page === 0) return;
  throw new UsageError(`Cannot page memory in from offset ${offset}`, {
    hint: `give a multiple of the page size, ${page}`,
  });
}

function mapMemory(size: number, page: number): Mapping {
  const mapping = Mapping.map({ length: Math.ceil(size / page) * page });
  // A child process would share the pages without anybody to fill the missing ones.
  mapping.advise(MADV.DONTFORK);
  return mapping;
}

class Registered implements RegisteredRegion {
  readonly #link: LinkWorker;
  readonly #fd: number;
  readonly #mapping: Mapping;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #onState: RegisterRegionOptions["onState"];
  #closing: Promise<void> | undefined;

  constructor(
    link: LinkWorker,
    fd: number,
    mapping: Mapping,
    size: number,
    onState: RegisterRegionOptions["onState"],
  ) {
    this.#link = link;
    this.#fd = fd;
    this.#mapping = mapping;
    this.#bytes = mapping.bytes.subarray(0, size);
    this.#onState = onState;
  }

  /** Waits for the handler's answer; ends the Worker and throws where it is no. */
  async open(socket: string): Promise<void> {
    const { state, reason } = await this.#link.nextState();
    if (state === "attached") {
      this.#link.onState = (state, reason) => this.#onState?.(state as RegionState, reason);
      return;
    }
    await this.#link.close();
    throw new ConnectionError(
      `Cannot have memory paged in by the handler at ${socket}: ${reason}`,
      {
        hint: "telemap uffd is such a handler",
      },
    );
  }

  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes;
  }

  get state(): RegionState {
    return this.#closing === undefined ? this.#link.state as RegionState : "closed";
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#link.onState = () => {};
    // While the userfaultfd is open nobody ever sees zeroes here, so the memory goes first.
    this.#mapping.unmap();
    await this.#link.close();
    closeDescriptor(this.#fd);
    this.#onState?.("closed", undefined);
  }
}

/** The Worker beside this isolate, which may be held up by a touch of the memory at any time. */
class LinkWorker {
  onState: (state: HandlerState, reason: string | undefined) => void = () => {};
  readonly #worker = new Worker(new URL("./handler_link_worker.ts", import.meta.url), {
    type: "module",
  });
  readonly #cell = new Int32Array(new SharedArrayBuffer(4));
  readonly #closed = Promise.withResolvers<void>();

  constructor(options: LinkOptions) {
    this.#worker.onmessage = ({ data }: MessageEvent<LinkMessage>) => {
      if (data.event === "state") this.onState(data.state, data.reason);
      else this.#closed.resolve();
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const reason = `its Worker failed: ${event.message}`;
      Atomics.compareExchange(this.#cell, 0, indexOf("attached"), indexOf("lost"));
      this.#closed.resolve();
      this.onState(this.state === "connecting" ? "failed" : this.state, reason);
    };
    this.#send({ command: "link", options, cell: this.#cell });
  }

  get state(): HandlerState {
    return HANDLER_STATES[Atomics.load(this.#cell, 0)]!;
  }

  nextState(): Promise<{ state: HandlerState; reason: string | undefined }> {
    return new Promise((resolve) => {
      this.onState = (state, reason) => resolve({ state, reason });
    });
  }

  async close(): Promise<void> {
    this.#send({ command: "close" });
    await this.#closed.promise;
    this.#worker.terminate();
  }

  #send(command: LinkCommand): void {
    this.#worker.postMessage(command);
  }
}

function indexOf(state: HandlerState): number {
  return HANDLER_STATES.indexOf(state);
}
