/**
 * A region on a server of the native wire, as a backend.
 *
 * @module
 */
import { type Awaitable, type Backend, checkRange, checkWritable } from "../backend/backend.ts";
import type { Extent, Traffic, ZeroOptions } from "../backend/backend.ts";
import {
  ClosedError,
  IntegrityError,
  RemoteError,
  UnsupportedError,
  UsageError,
} from "../backend/errors.ts";
import { appendExtent } from "../backend/extents.ts";
import { FlushLedger } from "../backend/flush_ledger.ts";
import { Semaphore } from "../backend/semaphore.ts";
import { settleAll } from "../backend/settle.ts";
import { type Address, formatAddress, parseAddress } from "../net/address.ts";
import type { Dialler } from "../net/dial.ts";
import type { Reactor } from "../net/reactor.ts";
import type { CompressionMode } from "./compression.ts";
import { ID_BYTES, type ServerHello } from "./hello.ts";
import { WireLane } from "./lane.ts";
import { WireRequest } from "./request.ts";
import { FEATURE, FLAG, LANE, type Lane, LIMIT, TYPE } from "./wire.ts";

/** How {@linkcode connectTelemap} connects. */
export interface ConnectTelemapOptions {
  /** What the server wants to see. */
  token?: string | undefined;
  /** A file that holds it; white space around it does not count. */
  tokenFile?: string | undefined;
  /** Milliseconds for connecting and the hello; default 10 000. */
  connectTimeout?: number | undefined;
  /** Milliseconds that a server may be silent while it owes an answer; default 30 000. */
  requestTimeout?: number | undefined;
  /**
   * What becomes of a request when the server cannot be reached: "wait" (default) keeps it for as
   * long as it takes, "error" rejects it with `DeadlineError` after the request timeout.
   */
  onLoss?: "wait" | "error" | undefined;
  /**
   * Where connections come from where it is the server that dials, as `acceptDialled` answers: the
   * URL says no more than the name of the export then. It is closed with the region.
   */
  dialler?: Dialler | undefined;
  /** What connections depend on; the runtime's event loop unless told. */
  reactor?: Reactor | undefined;
  /** When contents are compressed; `auto` (the default): where it is faster. */
  compression?: CompressionMode | undefined;
  /** Takes a line for people when the server is lost or found again; default `console.warn`. */
  log?: ((line: string) => void) | undefined;
}

/** How {@linkcode RemoteBackend.control} sends a message. */
export interface ControlOptions {
  /** Send it behind large transfers, for large answers; else ahead of them. */
  bulk?: boolean | undefined;
  /**
   * Milliseconds that the answer may take while the server is there and gives other answers;
   * the request timeout unless told. A message that is passed over for longer is sent again on
   * another connection, or fails where `onLoss` is "error". However long it is, a server that is
   * silent altogether is left after the request timeout.
   */
  timeout?: number | undefined;
  /**
   * Memory for the answer, which is put elsewhere if it has no room. Where the call fails, something may
   * be put there later.
   */
  room?: Uint8Array | undefined;
  /** Gives up, with its reason: what was not sent yet never is. */
  signal?: AbortSignal | undefined;
}

/** Messages in flight on one lane. The server holds as much back for each as for a large read. */
const CONTROL_MOST = 32;
/** Reads and writes up to this size are urgent: larger transfers do not hold them up. */
const URGENT_BYTES = 64 << 10;
/** Larger reads and writes are cut in pieces of this size, many of which are in flight. */
const PIECE_BYTES = 1 << 20;
/** Runs of one answer about extents; the rest of the range counts as data. */
const EXTENTS_MOST = 1 << 20;

/**
 * Connects to an export of a telemap server.
 *
 * ```ts
 * await using region = await connectTelemap("telemap://127.0.0.1:4100", { tokenFile: "token" });
 * const bytes = new Uint8Array(4096);
 * await region.readAt(bytes, 0);
 * ```
 *
 * @param url `telemap://HOST:PORT/NAME` or `telemap+unix:///NAME?socket=PATH`; the parameter
 * `token-file` stands for the option.
 * @throws {UsageError} The URL or the token is not well-formed.
 * @throws {ConnectionError | DeadlineError} There is no server there.
 * @throws {ProtocolError} It does not speak the native wire, or no version that this side does.
 * @throws {RemoteError} It refuses: EACCES (token), ENOENT (no such export).
 */
export async function connectTelemap(
  url: string | URL,
  options: ConnectTelemapOptions = {},
): Promise<RemoteBackend> {
  const parsed = parseAddress(url, ["token-file"]);
  const { params, ...rest } = parsed;
  const address: Address = { ...rest, params: new Map() };
  if (address.protocol !== "telemap") {
    throw new UsageError(`Cannot speak the native wire with ${formatAddress(address)}`, {
      hint: "expected an address of the form telemap://HOST:PORT/NAME",
    });
  }
  const file = options.tokenFile ?? params.get("token-file");
  const token = options.token ?? (file === undefined ? "" : (await Deno.readTextFile(file)).trim());
  if (new TextEncoder().encode(token).length > LIMIT.TOKEN) {
    throw new UsageError(`Cannot use a token of more than ${LIMIT.TOKEN} bytes`);
  }
  return await RemoteBackend.connect(address, token, options);
}

/** See {@linkcode connectTelemap}. */
export class RemoteBackend implements Backend {
  readonly traffic: Traffic = { sentBytes: 0, receivedBytes: 0 };
  readonly readsUrgently = true;
  readonly #url: string;
  readonly #log: (line: string) => void;
  readonly #ledger = new FlushLedger();
  readonly #dialler: Dialler | undefined;
  readonly #urgent: WireLane;
  readonly #bulk: WireLane;
  readonly #urgentControls = new Semaphore(CONTROL_MOST);
  readonly #bulkControls = new Semaphore(CONTROL_MOST);
  readonly #lost = new Set<WireLane>();
  /** What the server said when it refused a connection the last time. */
  #refusal = "";
  #server: ServerHello | undefined;
  #piece = PIECE_BYTES;
  /** Whether another region was found at the address. */
  #replaced = false;
  #closing: Promise<void> | undefined;

  /** Connects; {@linkcode connectTelemap} is the way in. */
  static async connect(
    address: Address,
    token: string,
    options: ConnectTelemapOptions,
  ): Promise<RemoteBackend> {
    const backend = new RemoteBackend(address, token, options);
    const connecting = backend.#urgent.connect();
    // At once, lest the first large transfer waits for two round trips more.
    backend.#bulk.connectAhead();
    try {
      await connecting;
    } catch (error) {
      await backend.#bulk.close();
      throw error;
    }
    const { blockSize, payloadMax } = backend.#server!;
    const most = Math.max(Math.min(PIECE_BYTES, payloadMax), blockSize);
    backend.#piece = most - most % blockSize;
    backend.#bulk.start();
    return backend;
  }

  private constructor(address: Address, token: string, options: ConnectTelemapOptions) {
    const {
      connectTimeout = 10_000,
      requestTimeout = 30_000,
      onLoss = "wait",
      compression = "auto",
      dialler,
      reactor,
    } = options;
    this.#url = formatAddress(address);
    this.#dialler = dialler;
    this.#log = options.log ?? console.warn;
    const session = crypto.getRandomValues(new Uint8Array(ID_BYTES));
    const lane = (number: Lane) =>
      new WireLane({
        ...{ address, url: this.#url, lane: number, session, token, compression },
        ...{ connectTimeout, requestTimeout, dialler, reactor },
        keepWaiting: onLoss === "wait",
        ledger: this.#ledger,
        traffic: this.traffic,
        onConnected: (server, lane) => this.#connected(server, lane),
        onLost: (reason, lane) => this.#connectionLost(reason, lane),
      });
    this.#urgent = lane(LANE.URGENT);
    this.#bulk = lane(LANE.BULK);
  }

  get size(): number {
    return this.#server!.size;
  }

  get blockSize(): number {
    return this.#server!.blockSize;
  }

  get durable(): boolean {
    return this.#server!.durable;
  }

  get readOnly(): boolean {
    return this.#server!.readOnly;
  }

  get regionId(): Uint8Array {
    return this.#server!.region;
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#check(offset, buffer.length);
    return this.#transfer(TYPE.READ, buffer, offset);
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#check(offset, buffer.length);
    checkWritable(this);
    if (this.#uncertain()) {
      return this.#makeCertain().then(() => this.#transfer(TYPE.WRITE, buffer, offset));
    }
    return this.#transfer(TYPE.WRITE, buffer, offset);
  }

  flush(): Promise<void> {
    this.#check(0, 0);
    const request = new WireRequest(TYPE.FLUSH, 0, 0);
    request.mark = this.#ledger.mark;
    return this.#bulk.submit(request);
  }

  async zero(offset: number, length: number, options: ZeroOptions = {}): Promise<void> {
    await this.#change(TYPE.ZERO, offset, length, options.allocate === true ? FLAG.ALLOCATE : 0);
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.#change(TYPE.DISCARD, offset, length, 0);
  }

  async extents(offset: number, length: number): Promise<Extent[]> {
    this.#check(offset, length);
    const extents: Extent[] = [];
    const end = offset + length;
    while (offset < end) {
      if (extents.length >= EXTENTS_MOST) {
        appendExtent(extents, { offset, length: end - offset, hole: false, zero: false });
        break;
      }
      const request = new WireRequest(TYPE.EXTENTS, offset, end - offset);
      await this.#bulk.submit(request);
      for (const extent of request.extents) {
        appendExtent(extents, extent);
        offset += extent.length;
      }
    }
    return extents;
  }

  /**
   * Sends a message of at most 64 KiB to the controller of the export, and answers what that says.
   * It may reach the controller more than once, as it is repeated when a connection is lost.
   *
   * @throws {UnsupportedError} The export has no controller.
   * @throws {RemoteError} The controller refuses; the code says why.
   */
  async control(message: Uint8Array, options: ControlOptions = {}): Promise<Uint8Array> {
    const { bulk = false, timeout, room, signal } = options;
    this.#check(0, 0);
    if (message.length > LIMIT.CONTROL) {
      throw new RangeError(
        `Cannot send a message of ${message.length} bytes as the limit is ${LIMIT.CONTROL}`,
      );
    }
    if (timeout !== undefined && !(timeout > 0)) {
      throw new RangeError(`Cannot wait ${timeout} ms for an answer`);
    }
    if ((this.#server!.features & FEATURE.CONTROL) === 0) {
      throw new UnsupportedError(`${this.#url} takes no messages for this region`, {
        hint: "to move it, have telemap seed serve it: telemap serve lets nobody take it over",
      });
    }
    signal?.throwIfAborted();
    const request = new WireRequest(TYPE.CONTROL, 0, 0, message.slice());
    request.timeout = timeout;
    request.room = room;
    const [lane, controls] = bulk
      ? [this.#bulk, this.#bulkControls]
      : [this.#urgent, this.#urgentControls];
    const abort = () => request.reject(signal?.reason);
    signal?.addEventListener("abort", abort);
    // A lane that is closed meanwhile throws instead of taking the request.
    controls.run(async () => await lane.submit(request)).catch((error) => request.reject(error));
    try {
      await request.promise;
      return request.answer;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Milliseconds to the server and back, on the urgent lane, now. */
  async roundTrip(): Promise<number> {
    this.#check(0, 0);
    const start = performance.now();
    await this.#urgent.submit(new WireRequest(TYPE.PING, 0, 0));
    return performance.now() - start;
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  /** As {@linkcode close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await Promise.all([this.#urgent.close(), this.#bulk.close()]);
    await this.#dialler?.close();
  }

  #check(offset: number, length: number): void {
    if (this.#closing !== undefined) {
      throw new ClosedError("Cannot use a backend that is closed");
    }
    checkRange(this.size, offset, length);
  }

  #transfer(type: number, buffer: Uint8Array, offset: number): Awaitable<void> {
    const { length } = buffer;
    if (length === 0) return;
    const lane = length <= URGENT_BYTES ? this.#urgent : this.#bulk;
    if (length <= this.#piece) return lane.submit(new WireRequest(type, offset, length, buffer));
    return this.#transferInPieces(type, buffer, offset);
  }

  async #transferInPieces(type: number, buffer: Uint8Array, offset: number): Promise<void> {
    const pieces: Promise<void>[] = [];
    for (let done = 0; done < buffer.length; done += this.#piece) {
      const piece = buffer.subarray(done, done + this.#piece);
      pieces.push(this.#bulk.submit(new WireRequest(type, offset + done, piece.length, piece)));
    }
    await settleAll(pieces);
  }

  async #change(type: number, offset: number, length: number, flags: number): Promise<void> {
    this.#check(offset, length);
    checkWritable(this);
    if (length === 0) return;
    if (this.#uncertain()) await this.#makeCertain();
    await this.#bulk.submit(new WireRequest(type, offset, length, undefined, flags));
  }

  #uncertain(): boolean {
    return this.#urgent.uncertain || this.#bulk.uncertain;
  }

  /** Waits until no change that was given up can be carried out any more. */
  async #makeCertain(): Promise<void> {
    const lanes = [this.#urgent, this.#bulk].filter((lane) => lane.uncertain);
    await Promise.all(lanes.map((lane) => lane.submit(new WireRequest(TYPE.PING, 0, 0))));
  }

  #connected(server: ServerHello, lane: WireLane): void {
    const before = this.#server;
    if (before !== undefined && !sameRegion(before, server)) {
      throw this.#otherRegion();
    }
    if (before !== undefined && !sameBytes(before.instance, server.instance)) {
      this.#ledger.connectionLost();
    }
    this.#server = server;
    this.#refusal = "";
    if (this.#lost.delete(lane) && this.#lost.size === 0) {
      this.#log(`Connected to ${this.#url} again`);
    }
  }

  /** Whoever waits for a device sees no more than EIO of it, so it is said here, once. */
  #otherRegion(): IntegrityError {
    const error = new IntegrityError(`${this.#url} has another region now`, {
      hint: "mount it anew where that is what you want",
    });
    if (!this.#replaced) this.#log(`Lost ${this.#url} for good: ${error.message}`);
    this.#replaced = true;
    return error;
  }

  #connectionLost(reason: Error, lane: WireLane): void {
    const first = this.#lost.size === 0;
    this.#lost.add(lane);
    // A server that is there again and refuses will not change its mind by itself.
    const refused = reason instanceof RemoteError && reason.message !== this.#refusal;
    if (refused) this.#refusal = reason.message;
    if (first || refused) this.#log(`Lost ${this.#url}, trying on: ${reason.message}`);
  }
}

function sameRegion(a: ServerHello, b: ServerHello): boolean {
  return a.size === b.size && a.blockSize === b.blockSize && sameBytes(a.region, b.region);
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, index) => byte === b[index]);
}
