/**
 * One connection to an NBD server in its transmission phase: requests go out pipelined, heads and
 * short payloads gathered into one write, and replies find their requests by cookie.
 *
 * A cookie is the index of a slot and a generation, so that a reply that comes twice, or late, is
 * known for what it is.
 *
 * @module
 */
import { ConnectionError, TelemapError } from "../backend/errors.ts";
import type { ByteConn } from "../net/reactor_conn.ts";
import type { OpenExport } from "./client_open.ts";
import type { ClientRequest } from "./client_request.ts";
import { SIZE } from "./constants.ts";
import { ReplyParser, type ReplySink } from "./reply_parser.ts";
import { encodeDisconnect, setRequestHeader } from "./request_header.ts";

/** Who started a connection and hears of what becomes of its requests. */
export interface ConnectionOwner {
  /** The server answered; `error` is 0 or an error number of the protocol. */
  finished(request: ClientRequest, error: number, message: string): void;
  /** The connection is over; these requests have no answer, in no order. Called once, last. */
  ended(reason: TelemapError, unanswered: ClientRequest[]): void;
}

/** Requests that one connection has in flight at most. */
export const IN_FLIGHT_LIMIT = 64;

/** Bytes that are gathered into one write. */
const GATHER_SIZE = 128 << 10;

/** A connection; over when its owner's `ended` was called. */
export class ClientConnection implements ReplySink {
  readonly #conn: ByteConn;
  readonly #owner: ConnectionOwner;
  readonly #parser: ReplyParser;

  readonly #slots: (ClientRequest | undefined)[] = new Array(IN_FLIGHT_LIMIT).fill(undefined);
  readonly #generations = new Uint32Array(IN_FLIGHT_LIMIT);
  readonly #free: number[] = Array.from({ length: IN_FLIGHT_LIMIT }, (_, slot) => slot);

  readonly #gather = new Uint8Array(GATHER_SIZE);
  readonly #gatherView = new DataView(this.#gather.buffer);
  /** Slots whose requests are to be sent, first in, first out. */
  #unsent: number[] = [];
  #sending: Promise<void> | undefined;
  /** A slot whose payload is on its way straight from the caller's buffer. */
  #leaving: number | undefined;
  #answeredEarly: (() => void) | undefined;

  #reason: TelemapError | undefined;

  /** Takes over a stream at the start of its transmission phase. */
  constructor({ conn, negotiated }: OpenExport, owner: ConnectionOwner) {
    this.#conn = conn;
    this.#owner = owner;
    this.#parser = new ReplyParser(this, negotiated);
    this.#run();
  }

  /** Requests in flight. */
  get inFlight(): number {
    return IN_FLIGHT_LIMIT - this.#free.length;
  }

  /** The requests in flight, in no order. */
  *requests(): Generator<ClientRequest> {
    for (const request of this.#slots) if (request !== undefined) yield request;
  }

  /** Sends a request, soon; there must be room ({@linkcode IN_FLIGHT_LIMIT}). */
  send(request: ClientRequest): void {
    const slot = this.#free.pop()!;
    this.#slots[slot] = request;
    this.#generations[slot]!++;
    this.#unsent.push(slot);
    if (this.#sending === undefined && this.#reason === undefined) this.#sending = this.#sendAll();
  }

  /** Ends the connection; `ended` follows when nothing touches a request's buffer any more. */
  drop(reason: TelemapError): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#conn.close();
  }

  /** Ends a connection that has nothing in flight politely. */
  async disconnect(reason: TelemapError): Promise<void> {
    await this.#sending;
    if (this.#reason === undefined) await this.#conn.write(encodeDisconnect()).catch(() => {});
    this.drop(reason);
  }

  find(cookieHigh: number, cookieLow: number): ClientRequest | undefined {
    if (this.#generations[cookieLow] !== cookieHigh) return undefined;
    return this.#unsent.includes(cookieLow) ? undefined : this.#slots[cookieLow];
  }

  finish(request: ClientRequest, slot: number, error: number, message: string): void {
    if (this.#leaving === slot) {
      // The server answered before it had all of the payload, which is still being read by the
      // system from the caller's buffer.
      this.#answeredEarly ??= () => this.finish(request, slot, error, message);
      return;
    }
    this.#slots[slot] = undefined;
    this.#free.push(slot);
    this.#owner.finished(request, error, message);
  }

  async #run(): Promise<void> {
    try {
      for (;;) {
        const count = await this.#conn.read(this.#parser.room());
        if (count === null) throw new ConnectionError("The server closed the connection");
        this.#parser.take(count);
      }
    } catch (error) {
      this.drop(asTelemapError(error));
    }
    await this.#sending;
    this.#owner.ended(this.#reason!, [...this.requests()]);
  }

  async #sendAll(): Promise<void> {
    // What else is submitted in this turn goes along.
    await Promise.resolve();
    try {
      while (this.#unsent.length > 0 && this.#reason === undefined) await this.#sendSome();
    } catch (error) {
      this.drop(asTelemapError(error));
    }
    this.#sending = undefined;
  }

  /** Sends requests up to one whose payload does not fit in what is gathered. */
  async #sendSome(): Promise<void> {
    let gathered = 0;
    let count = 0;
    let rest: Uint8Array | undefined;
    let last = 0;
    while (count < this.#unsent.length && rest === undefined) {
      if (gathered + SIZE.REQUEST > GATHER_SIZE) break;
      last = this.#unsent[count++]!;
      const request = this.#slots[last]!;
      setRequestHeader(this.#gatherView, gathered, request, this.#generations[last]!, last);
      gathered += SIZE.REQUEST;
      const length = request.payloadLength;
      const head = Math.min(length, GATHER_SIZE - gathered);
      this.#gather.set(request.data.subarray(0, head), gathered);
      gathered += head;
      if (head < length) rest = request.data.subarray(head);
    }
    this.#unsent.splice(0, count);
    if (rest !== undefined) this.#leaving = last;
    await this.#write(this.#gather.subarray(0, gathered));
    if (rest === undefined) return;
    await this.#write(rest);
    this.#leaving = undefined;
    this.#answeredEarly?.();
    this.#answeredEarly = undefined;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) at += await this.#conn.write(bytes.subarray(at));
  }
}

function asTelemapError(error: unknown): TelemapError {
  if (error instanceof TelemapError) return error;
  return new ConnectionError(
    `The connection broke: ${error instanceof Error ? error.message : error}`,
    { cause: error },
  );
}
