/**
 * An export of an NBD server as a backend, in user space: `nbd://HOST[:PORT]/NAME` or
 * `nbd+unix:///NAME?socket=PATH`.
 *
 * @module
 */
import { type Backend, checkRange, checkWritable, type Extent } from "../backend/backend.ts";
import { appendExtent } from "../backend/extents.ts";
import { FlushLedger } from "../backend/flush_ledger.ts";
import { settleAll } from "../backend/settle.ts";
import { ClosedError, IntegrityError, UsageError } from "../backend/errors.ts";
import { type Address, formatAddress, parseAddress } from "../net/address.ts";
import type { Reactor } from "../net/reactor.ts";
import { lostWritesError } from "./client_error.ts";
import { Link, type LinkOptions } from "./client_link.ts";
import { type NegotiatedExport, type OpenExport, openExport } from "./client_open.ts";
import { ClientRequest } from "./client_request.ts";
import { COMMAND, COMMAND_FLAG, FLAG, LIMIT } from "./constants.ts";

/** How {@linkcode connectNbd} connects, and what happens when the server is slow or gone. */
export interface NbdClientOptions {
  /** Milliseconds for connecting and the handshake; default 10 000. */
  connectTimeout?: number;
  /** Milliseconds that a request may take, over all connections; default 60 000. */
  requestTimeout?: number;
  /** Milliseconds to go on trying to connect again after a loss; default 30 000, 0 for never. */
  reconnectTimeout?: number;
  /** Milliseconds that closing gives to requests in flight; default 2 000. */
  closeTimeout?: number;
  /**
   * What becomes of a request that is late, or for which no connection can be had: "error" rejects
   * it with `DeadlineError` or `ConnectionError` (default); "wait" keeps it and goes on connecting.
   */
  onLoss?: "error" | "wait";
  /**
   * A lost connection may mean a restarted server that lost what it had not flushed. "error" lets
   * the next flush say so, once, by an `IntegrityError` (default); "ignore" trusts the server.
   */
  onLostWrites?: "error" | "ignore";
  /** What connections depend on; the runtime's event loop unless told. */
  reactor?: Reactor | undefined;
  /** Connections to use, where the server can have several; default 1. */
  connections?: number;
  /** Takes a line when a connection is lost or made again; default `console.warn`. */
  log?: (line: string) => void;
}

/** Bytes that one WRITE_ZEROES, TRIM or BLOCK_STATUS is for, at most. */
const EFFECT_LIMIT = 1 << 30;

/** Extents that one answer of {@linkcode NbdBackend.extents} has; what is behind counts as data. */
const EXTENT_LIMIT = 1 << 20;

const CONNECTIONS_LIMIT = 16;

/**
 * Connects to an export.
 *
 * @throws {UsageError} The address or an option is wrong.
 * @throws {ConnectionError} There is no connection.
 * @throws {DeadlineError} The server did not answer in time.
 * @throws {RemoteError} The server refuses the export; code ENOENT where it has none of that name.
 * @throws {ProtocolError} It does not keep to the protocol.
 */
export async function connectNbd(
  target: string | URL | Address,
  options: NbdClientOptions = {},
): Promise<NbdBackend> {
  const address = typeof target === "string" || target instanceof URL
    ? parseAddress(target)
    : target;
  const { connectTimeout = 10_000, connections = 1 } = options;
  if (!Number.isInteger(connections) || connections < 1 || connections > CONNECTIONS_LIMIT) {
    throw new UsageError(`Cannot use ${connections} connections`, {
      hint: `expected 1 to ${CONNECTIONS_LIMIT}`,
    });
  }
  const { reactor } = options;
  const opened = [await openExport(address, connectTimeout, undefined, reactor)];
  const { negotiated } = opened[0]!;
  const open = async (timeout: number, signal?: AbortSignal) =>
    checkSame(
      negotiated,
      await openExport(address, Math.min(timeout, connectTimeout), signal, reactor),
    );
  try {
    const wanted = (negotiated.flags & FLAG.CAN_MULTI_CONN) !== 0 ? connections : 1;
    while (opened.length < wanted) opened.push(await open(connectTimeout));
  } catch (error) {
    for (const { conn } of opened) conn.close();
    throw error;
  }
  const ledger = new FlushLedger();
  const linkOptions: LinkOptions = {
    url: formatAddress(address),
    open,
    requestTimeout: options.requestTimeout ?? 60_000,
    reconnectTimeout: options.reconnectTimeout ?? 30_000,
    closeTimeout: options.closeTimeout ?? 2000,
    keepWaiting: options.onLoss === "wait",
    trustServer: options.onLostWrites === "ignore",
    ledger,
    log: options.log ?? console.warn,
  };
  return new NbdBackend(opened.map((one) => new Link(one, linkOptions)), negotiated, linkOptions);
}

/**
 * An export of an NBD server. Made by {@linkcode connectNbd}.
 *
 * `zero`, `discard` and `extents` are there where the server has them. What is discarded reads as
 * the server pleases; the known ones show zeroes or what was there. A request that is longer than
 * the server takes goes as several, so that a failed one may have been carried out in part.
 */
export class NbdBackend implements Backend {
  readonly size: number;
  readonly blockSize: number;
  /** Whether the server has FLUSH; without it, {@linkcode flush} does nothing. */
  readonly durable: boolean;
  readonly readOnly: boolean;
  readonly zero?: NonNullable<Backend["zero"]>;
  readonly discard?: NonNullable<Backend["discard"]>;
  readonly extents?: NonNullable<Backend["extents"]>;
  readonly #links: Link[];
  readonly #options: LinkOptions;
  readonly #payloadLimit: number;
  #isClosed = false;

  /** Takes over links to one export. */
  constructor(links: Link[], negotiated: NegotiatedExport, options: LinkOptions) {
    const { size, flags, blockSizes, allocation } = negotiated;
    this.#links = links;
    this.#options = options;
    this.size = size;
    this.blockSize = blockSizes?.minimum ?? 1;
    this.durable = (flags & FLAG.SEND_FLUSH) !== 0;
    this.readOnly = (flags & FLAG.READ_ONLY) !== 0;
    const most = Math.min(blockSizes?.maximum ?? LIMIT.PAYLOAD, LIMIT.PAYLOAD);
    this.#payloadLimit = most - most % this.blockSize;
    if ((flags & FLAG.SEND_WRITE_ZEROES) !== 0) {
      // Never FAST_ZERO: the slow way of the server still beats sending it the zeroes.
      this.zero = (offset, length, options) =>
        this.#change(
          COMMAND.WRITE_ZEROES,
          options?.allocate === true ? COMMAND_FLAG.NO_HOLE : 0,
          offset,
          length,
        );
    }
    if ((flags & FLAG.SEND_TRIM) !== 0) {
      this.discard = (offset, length) => this.#change(COMMAND.TRIM, 0, offset, length);
    }
    if (allocation !== undefined) {
      this.extents = (offset, length) => this.#extents(offset, length);
    }
  }

  readAt(buffer: Uint8Array, offset: number): Promise<void> {
    this.#check(offset, buffer.length);
    return this.#split(COMMAND.READ, 0, offset, buffer.length, this.#payloadLimit, buffer);
  }

  writeAt(buffer: Uint8Array, offset: number): Promise<void> {
    this.#check(offset, buffer.length);
    checkWritable(this);
    return this.#split(COMMAND.WRITE, 0, offset, buffer.length, this.#payloadLimit, buffer);
  }

  /**
   * Answers when the server says that all writes it acknowledged before are durable.
   *
   * @throws {IntegrityError} A connection was lost since the last flush, and acknowledged writes
   * with it, perhaps; said once (see {@linkcode NbdClientOptions.onLostWrites}).
   */
  async flush(): Promise<void> {
    this.#checkOpen();
    if (!this.durable) return;
    const { ledger, trustServer, url } = this.#options;
    const request = new ClientRequest(COMMAND.FLUSH, 0, 0, 0);
    request.mark = ledger.mark;
    if (!trustServer && ledger.isInDoubt(request.mark)) {
      ledger.report(request.mark);
      throw lostWritesError(url);
    }
    await this.#submit(request);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all(this.#links.map((link) => link.close()));
  }

  /** Closes it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #change(command: number, flags: number, offset: number, length: number): Promise<void> {
    this.#check(offset, length);
    checkWritable(this);
    return this.#split(command, flags, offset, length, EFFECT_LIMIT);
  }

  async #extents(offset: number, length: number): Promise<Extent[]> {
    this.#check(offset, length);
    const extents: Extent[] = [];
    const end = offset + length;
    for (let at = offset; at < end;) {
      if (extents.length >= EXTENT_LIMIT) {
        appendExtent(extents, { offset: at, length: end - at, hole: false, zero: false });
        break;
      }
      const request = new ClientRequest(
        COMMAND.BLOCK_STATUS,
        0,
        at,
        Math.min(EFFECT_LIMIT, end - at),
      );
      await this.#submit(request);
      for (const extent of request.extents) appendExtent(extents, extent);
      at += request.described;
    }
    return extents;
  }

  /** Sends a request, or as many as it takes; settles when no buffer is in use any more. */
  async #split(
    command: number,
    flags: number,
    offset: number,
    length: number,
    step: number,
    data?: Uint8Array,
  ): Promise<void> {
    if (length === 0) return;
    if (length <= step) return await this.#submit(newRequest(offset, length, data));
    const parts: Promise<void>[] = [];
    for (let at = 0; at < length; at += step) {
      const part = Math.min(step, length - at);
      parts.push(this.#submit(newRequest(offset + at, part, data?.subarray(at, at + part))));
    }
    await settleAll(parts);

    function newRequest(offset: number, length: number, data?: Uint8Array): ClientRequest {
      return new ClientRequest(command, flags, offset, length, data);
    }
  }

  /** Submits on the link with the least to do. */
  #submit(request: ClientRequest): Promise<void> {
    let best = this.#links[0]!;
    for (const link of this.#links) if (link.load < best.load) best = link;
    return best.submit(request);
  }

  #check(offset: number, length: number): void {
    this.#checkOpen();
    checkRange(this.size, offset, length);
    const isAligned = offset % this.blockSize === 0 &&
      (length % this.blockSize === 0 || offset + length === this.size);
    if (isAligned) return;
    throw new RangeError(
      `Cannot reach ${length} bytes at offset ${offset} as ${this.#options.url} needs multiples ` +
        `of ${this.blockSize}`,
    );
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new ClosedError(`Cannot use ${this.#options.url} after close()`);
  }
}

/** Throws unless a new connection leads to what the first one led to. */
function checkSame(first: NegotiatedExport, opened: OpenExport): OpenExport {
  const now = opened.negotiated;
  const traits = (one: NegotiatedExport) => ({
    size: one.size,
    flags: one.flags,
    "smallest block": one.blockSizes?.minimum,
    "longest payload": one.blockSizes?.maximum,
    "allocation map": one.allocation !== undefined,
  });
  const was = Object.entries(traits(first));
  const is = Object.entries(traits(now));
  for (const [index, [name, value]] of was.entries()) {
    if (is[index]![1] === value) continue;
    opened.conn.close();
    throw new IntegrityError(
      `The server has another export than before: its ${name} was ${value}, is ${is[index]![1]}`,
    );
  }
  return opened;
}
