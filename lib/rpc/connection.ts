/**
 * One connection of a client of the native wire: dials, says hello, then sends frames and hands on
 * replies until it ends. It is not used again after that.
 *
 * @module
 */
import { ERRNO } from "../../ffi/errno.ts";
import {
  ConnectionError,
  DeadlineError,
  ProtocolError,
  RemoteError,
  TelemapError,
} from "../backend/errors.ts";
import { type Address, formatAddress } from "../net/address.ts";
import { dial, type Dialler } from "../net/dial.ts";
import type { Traffic } from "../backend/backend.ts";
import type { Reactor } from "../net/reactor.ts";
import type { ByteConn } from "../net/reactor_conn.ts";
import {
  type ClientHello,
  decodeServerHello,
  encodeClientHello,
  helloLength,
  type ServerHello,
} from "./hello.ts";
import { readHello, writeHello } from "./hello_stream.ts";
import { ReplyReceiver, type ReplySink } from "./reply_receiver.ts";
import { encodeFrame, type Frame, HEADER_BYTES, nameOfCode } from "./wire.ts";

/** How {@linkcode WireConnection.open} connects. */
export interface OpenConnectionOptions {
  /** Where to. */
  address: Address;
  /** What is said. */
  hello: ClientHello;
  /** Milliseconds for all of it. */
  timeout: number;
  /** Gives up. */
  signal: AbortSignal;
  /** Counts what is sent and received, before any encryption. */
  traffic: Traffic;
  /** Where the connection comes from instead of being made to the address. */
  dialler?: Dialler | undefined;
  /** What the connection depends on; the runtime's event loop unless told. */
  reactor?: Reactor | undefined;
}

/** Frames that wait for the connection are put side by side in buffers of this size. */
const BATCH_BYTES = 64 << 10;
/** A payload up to this size is copied beside its header; a larger one is sent from where it lies. */
const COPIED_BYTES = 16 << 10;

/** See the module. */
export class WireConnection {
  /** What the server said. */
  readonly server: ServerHello;
  /** Milliseconds that its answer to the hello took. */
  readonly roundTrip: number;
  /**
   * When bytes came for the last time, or were taken of a large payload; as `performance.now()`
   * counts. What else is sent says nothing: the kernel takes it for a server that is dead.
   */
  lastProgress: number = performance.now();
  /** Resolves with the reason when the connection is over. */
  readonly ended: Promise<TelemapError>;

  readonly #conn: ByteConn;
  readonly #traffic: Traffic;
  #end!: (reason: TelemapError) => void;
  #over = false;
  #batch = new Uint8Array(BATCH_BYTES);
  #batchView = new DataView(this.#batch.buffer);
  #batchStart = 0;
  #batchEnd = 0;
  /** What is to be sent before the rest of the batch. */
  readonly #segments: Uint8Array[] = [];
  #sending = false;

  /**
   * Connects and says hello.
   *
   * @throws {ConnectionError | DeadlineError} There is no server, or it does not answer.
   * @throws {ProtocolError} It speaks something else.
   * @throws {RemoteError} It refuses; the code says why (EACCES: token, ENOENT: export).
   */
  static async open(options: OpenConnectionOptions): Promise<WireConnection> {
    const { address, timeout, signal, reactor, traffic, dialler } = options;
    const url = formatAddress(address);
    const start = performance.now();
    const conn =
      await (dialler === undefined
        ? dial(address, { timeout, signal, reactor })
        : dialler.dial({ timeout, signal }));
    const dialled = performance.now();
    let reason: TelemapError | undefined;
    const giveUp = (why: TelemapError) => {
      reason = why;
      conn.close();
    };
    const timer = setTimeout(() => {
      giveUp(new DeadlineError(`${url} did not answer the hello within ${timeout} ms`));
    }, Math.max(timeout - (dialled - start), 0));
    const abort = () => giveUp(signal.reason);
    signal.addEventListener("abort", abort);
    try {
      signal.throwIfAborted();
      const server = await exchangeHello(conn, options.hello, url, traffic);
      return new WireConnection(conn, server, performance.now() - dialled, traffic);
    } catch (error) {
      if (reason !== undefined) throw reason;
      conn.close();
      throw asTelemapError(error, `Lost the connection to ${url} during the hello`);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
    }
  }

  private constructor(conn: ByteConn, server: ServerHello, roundTrip: number, traffic: Traffic) {
    this.#conn = conn;
    this.#traffic = traffic;
    this.server = server;
    this.roundTrip = roundTrip;
    this.ended = new Promise((resolve) => this.#end = resolve);
  }

  /** Hands replies to `sink` from now on; an error of it ends the connection. */
  start(sink: ReplySink): void {
    this.#receive(new ReplyReceiver(sink, this.server.payloadMax));
  }

  /** Sends a frame and its payload, which must stay as it is until the reply. */
  send(frame: Frame, payload: Uint8Array): void {
    const copied = payload.length <= COPIED_BYTES ? payload.length : 0;
    if (this.#batchEnd + HEADER_BYTES + copied > BATCH_BYTES) this.#newBatch();
    encodeFrame(this.#batchView, this.#batchEnd, frame);
    this.#batchEnd += HEADER_BYTES;
    if (copied > 0) {
      this.#batch.set(payload, this.#batchEnd);
      this.#batchEnd += copied;
    } else if (payload.length > 0) {
      this.#sealBatch();
      this.#segments.push(payload);
    }
    if (!this.#sending) this.#sendAll();
  }

  /** Ends the connection, for this reason. Again: does nothing. */
  drop(reason: TelemapError): void {
    if (this.#over) return;
    this.#over = true;
    this.#conn.close();
    this.#end(reason);
  }

  async #receive(receiver: ReplyReceiver): Promise<void> {
    try {
      while (!this.#over) {
        const count = await this.#conn.read(receiver.target());
        if (count === null) throw new ConnectionError("The server closed the connection");
        if (this.#over) return;
        this.lastProgress = performance.now();
        this.#traffic.receivedBytes += count;
        receiver.received(count);
      }
    } catch (error) {
      this.drop(asTelemapError(error, "The connection broke"));
    }
  }

  async #sendAll(): Promise<void> {
    this.#sending = true;
    try {
      for (let segment = this.#next(); segment !== undefined; segment = this.#next()) {
        const large = segment.buffer !== this.#batch.buffer;
        while (segment.length > 0) {
          const count: number = await this.#conn.write(segment);
          segment = segment.subarray(count);
          this.#traffic.sentBytes += count;
          if (large) this.lastProgress = performance.now();
        }
      }
    } catch (error) {
      this.drop(asTelemapError(error, "The connection broke"));
    }
    this.#sending = false;
  }

  #next(): Uint8Array | undefined {
    if (this.#over) return undefined;
    if (this.#segments.length === 0 && this.#batchStart === this.#batchEnd) {
      // Everything is sent: the batch can be filled from its beginning.
      this.#batchStart = this.#batchEnd = 0;
      return undefined;
    }
    if (this.#segments.length === 0) this.#sealBatch();
    return this.#segments.shift();
  }

  #sealBatch(): void {
    if (this.#batchStart === this.#batchEnd) return;
    this.#segments.push(this.#batch.subarray(this.#batchStart, this.#batchEnd));
    this.#batchStart = this.#batchEnd;
  }

  #newBatch(): void {
    this.#sealBatch();
    this.#batch = new Uint8Array(BATCH_BYTES);
    this.#batchView = new DataView(this.#batch.buffer);
    this.#batchStart = this.#batchEnd = 0;
  }
}

async function exchangeHello(
  conn: ByteConn,
  hello: ClientHello,
  url: string,
  traffic: Traffic,
): Promise<ServerHello> {
  const said = encodeClientHello(hello);
  await writeHello(conn, said);
  traffic.sentBytes += said.length;
  const bytes = await readHello(conn, helloLength);
  traffic.receivedBytes += bytes.length;
  const answer = decodeServerHello(bytes);
  if (!("code" in answer)) return checkedAnswer(answer, hello);
  const hint = answer.code === ERRNO.EACCES ? { hint: "give the server's token" } : {};
  throw new RemoteError(nameOfCode(answer.code), `${url} refuses: ${answer.message}`, hint);
}

function checkedAnswer(answer: ServerHello, hello: ClientHello): ServerHello {
  const fits = answer.payloadMax <= hello.payloadMax && answer.inFlightMax <= hello.inFlightMax &&
    (answer.features & ~hello.features) === 0;
  if (fits) return answer;
  throw new ProtocolError("Cannot use a hello that chooses what was not offered");
}

function asTelemapError(error: unknown, what: string): TelemapError {
  if (error instanceof TelemapError) return error;
  const why = error instanceof Error ? error.message : String(error);
  return new ConnectionError(`${what}: ${why}`, { cause: error });
}
