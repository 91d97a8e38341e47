/**
 * Pages the memory of other processes in from a backend: those that connect to a Unix socket and hand
 * their userfaultfd over, as Firecracker does when it loads a snapshot.
 *
 * @module
 */
import { pageSize } from "../../ffi/mman.ts";
import { probeUserfault, UFFD_FEATURE } from "../../ffi/userfault_open.ts";
import { UnsupportedError, UsageError } from "../backend/errors.ts";
import { type ListeningSocket, listenOnPath, orInUse } from "../net/listening_socket.ts";
import type { UserfaultClientEvent } from "../userfault/listener.ts";
import type { UserfaultLoss } from "../userfault/server.ts";
import { BackendHost } from "./host.ts";
import type { BackendSource } from "./source.ts";

/** How {@linkcode serveUserfault} serves. */
export interface ServeUserfaultOptions {
  /** Path of the Unix socket, which this user alone may connect to, or `@name`. */
  socket: string;
  /** Bytes that a fault brings in at first, a power of two, a page or more; 64 KiB unless told. */
  faultAround?: number;
  /** What becomes of a touch of a page that the backend fails to give; `wait` unless told. */
  onLoss?: UserfaultLoss;
  /** How long such a touch may wait before it is poisoned, in ms; 30 s unless told. */
  lossMs?: number;
  /** Clients at a time; 100 unless told. */
  maxClients?: number;
  /** How long a client may take to hand over, in ms; 10 s unless told. */
  handshakeMs?: number;
  /** What a remote backend (`telemap://`) wants to see. */
  backendToken?: string;
  /** Takes what happens to clients. */
  onClient?: (event: UserfaultClientEvent) => void;
}

/** A handler of page faults. Disposing of it lets all clients go and closes the backend. */
export interface UserfaultHandler extends AsyncDisposable {
  /** Where it listens. */
  readonly socket: string;
  /** Bytes of the region that memory is paged in from. */
  readonly size: number;
  /** Settles when nothing is served any more; with the error, if the handler failed. */
  readonly closed: Promise<Error | undefined>;
  /** Lets all clients go, who wait or end as they chose, and closes. Again: waits for the same. */
  close(): Promise<void>;
}

const FAULT_AROUND_MAX = 16 << 20;

/**
 * Pages in the memory of whoever connects to a socket, until the handler is closed. The handler
 * itself needs no permission to use userfaultfd.
 *
 * ```ts
 * await using handler = await serveUserfault("memory:16MiB", { socket: "@example" });
 * console.log(handler.socket);
 * ```
 *
 * @throws {UsageError} for an option that cannot be.
 * @throws {UnsupportedError} where the kernel cannot poison pages (Linux 6.6) and is to.
 * @throws {SystemError} where listening fails (EADDRINUSE, EACCES, …); nothing is left behind.
 */
export async function serveUserfault(
  backend: BackendSource,
  options: ServeUserfaultOptions,
): Promise<UserfaultHandler> {
  checkOptions(options);
  const { socket: path, faultAround, onLoss, lossMs } = options;
  const { maxClients = 100, handshakeMs = 10_000 } = options;
  const socket = orInUse(() => listenOnPath(path, path));
  let host: BackendHost | undefined;
  try {
    host = await BackendHost.start(backend, { token: options.backendToken });
    const clients = { faultAround, onLoss, lossMs, maxClients, handshakeMs };
    await host.listenUserfault(socket.fd, clients, (event) => options.onClient?.(event));
    socket.handedOver = true;
    return new RunningHandler(host, socket);
  } catch (error) {
    socket.cleanUp();
    await host?.close();
    throw error;
  }
}

function checkOptions(
  { faultAround, onLoss, maxClients, handshakeMs }: ServeUserfaultOptions,
): void {
  for (const [name, value] of Object.entries({ maxClients, handshakeMs })) {
    if (value === undefined || (Number.isSafeInteger(value) && value > 0)) continue;
    throw new UsageError(`Cannot serve with ${name} ${value}`, {
      hint: "give a whole number over 0",
    });
  }
  if (faultAround !== undefined) checkFaultAround(faultAround);
  if (onLoss !== "poison") return;
  const { features } = probeUserfault();
  // Without a way to a userfaultfd of its own the kernel tells this process nothing of what it has.
  if (features === 0 || (features & UFFD_FEATURE.POISON) !== 0) return;
  throw new UnsupportedError("Cannot poison pages that are lost", {
    hint: "Linux 6.6 or later can; let them wait",
  });
}

function checkFaultAround(faultAround: number): void {
  const page = pageSize();
  const isPower = Number.isInteger(Math.log2(faultAround));
  if (isPower && faultAround >= page && faultAround <= FAULT_AROUND_MAX) return;
  throw new UsageError(`Cannot page in ${faultAround} bytes a fault`, {
    hint: `give a power of two from the page size, ${page}, to ${FAULT_AROUND_MAX}`,
  });
}

class RunningHandler implements UserfaultHandler {
  readonly socket: string;
  readonly #host: BackendHost;
  readonly #socket: ListeningSocket;
  #closing: Promise<void> | undefined;

  constructor(host: BackendHost, socket: ListeningSocket) {
    this.#host = host;
    this.#socket = socket;
    this.socket = socket.url;
  }

  get size(): number {
    return this.#host.facts.size;
  }

  get closed(): Promise<Error | undefined> {
    return this.#host.ended;
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#socket.cleanUp();
    await this.#host.close();
  }
}
