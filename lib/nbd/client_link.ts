/**
 * A link to an NBD server that outlives its connections: it queues requests, keeps a bounded number
 * of them in flight, and when the connection is lost makes another and sends again what had no
 * answer. READ, WRITE, WRITE_ZEROES, TRIM, FLUSH and BLOCK_STATUS may all be done twice.
 *
 * It reconnects only while requests are waiting, so an idle link to a dead server does nothing.
 * Attempts that bring no answer, the first included, are further and further apart, also where the
 * server takes each connection and then drops it.
 *
 * NBD has no fencing: where the network fails but the server lives, the server may still carry out
 * a write of the lost connection after its repetition and after a later write to the same place.
 * Servers drop what they have not started when a connection ends, so that takes a write that hung
 * inside the server for as long as the reconnecting took.
 *
 * @module
 */
import {
  ClosedError,
  ConnectionError,
  IntegrityError,
  ProtocolError,
  type TelemapError,
  UnsupportedError,
  UsageError,
} from "../backend/errors.ts";
import type { FlushLedger } from "../backend/flush_ledger.ts";
import { ClientConnection, IN_FLIGHT_LIMIT } from "./client_connection.ts";
import { answeredError, lateError, lostWritesError } from "./client_error.ts";
import type { OpenExport } from "./client_open.ts";
import type { ClientRequest } from "./client_request.ts";
import { COMMAND, NBD_ERROR } from "./constants.ts";

/** How a link behaves; times in milliseconds. */
export interface LinkOptions {
  /** Where it leads to, for messages. */
  readonly url: string;
  /** Makes a connection to the same export as before within a time, or throws. */
  readonly open: (timeout: number, signal: AbortSignal) => Promise<OpenExport>;
  /** Time for an answer. */
  readonly requestTimeout: number;
  /** Time for getting a connection that answers, while requests wait for it; 0 for no attempt. */
  readonly reconnectTimeout: number;
  /** Time for requests that are in flight when the link is closed. */
  readonly closeTimeout: number;
  /** Requests that are late or have no connection wait on, instead of failing. */
  readonly keepWaiting: boolean;
  /** Writes of a lost connection count as kept: a flush does not report them. */
  readonly trustServer: boolean;
  /** What flushes may promise; shared by the links of one backend. */
  readonly ledger: FlushLedger;
  /** Takes a line for people when a connection is lost or made again. */
  readonly log: (line: string) => void;
}

/** Bytes of payload in flight at most; one request alone may have more. */
const BYTES_IN_FLIGHT_LIMIT = 64 << 20;

/** Milliseconds between attempts to connect: the second, and the most. */
const BACKOFF = { first: 10, most: 2000 };

/** Milliseconds between looks for late requests, at most. */
const WATCH_INTERVAL = 1000;

/** One lane to a server. */
export class Link {
  readonly #options: LinkOptions;
  #connection: ClientConnection | undefined;
  #reconnecting = false;
  /** What is not in flight, in the order of submission. */
  #queue: ClientRequest[] = [];
  #sequence = 0;
  #bytesInFlight = 0;
  /** Attempts to connect since the last answer, when the first of them began, and why. */
  #attempts = 0;
  #outageStart: number | undefined;
  #failure: unknown;
  /** Ends the waits of reconnecting. */
  readonly #abort = new AbortController();
  #watch: ReturnType<typeof setInterval> | undefined;
  #closing: PromiseWithResolvers<void> | undefined;

  /** Starts with an open connection. */
  constructor(opened: OpenExport, options: LinkOptions) {
    this.#options = options;
    this.#connection = this.#connect(opened);
  }

  /** Requests that are waiting or in flight. */
  get load(): number {
    return this.#queue.length + (this.#connection?.inFlight ?? 0);
  }

  /** Takes a request; its promise settles with the answer. */
  submit(request: ClientRequest): Promise<void> {
    request.since = performance.now();
    request.sequence = this.#sequence++;
    this.#queue.push(request);
    this.#startWatch();
    this.#pump();
    return request.promise;
  }

  /** Lets requests in flight finish, within the time for it; fails the rest. Then disconnects. */
  async close(): Promise<void> {
    if (this.#closing !== undefined) return await this.#closing.promise;
    this.#closing = Promise.withResolvers<void>();
    const drop = () => this.#connection?.drop(this.#closedError());
    const timer = setTimeout(drop, this.#options.closeTimeout);
    this.#abort.abort(this.#closedError());
    if (this.#connection !== undefined) this.#disconnectWhenIdle();
    else if (!this.#reconnecting) this.#closed();
    await this.#closing.promise;
    clearTimeout(timer);
  }

  #connect(opened: OpenExport): ClientConnection {
    const connection = new ClientConnection(opened, {
      finished: (request, error, message) => this.#finished(connection, request, error, message),
      ended: (reason, unanswered) => this.#ended(reason, unanswered),
    });
    return connection;
  }

  /** Sends what is waiting while there is room; gets a connection where there is none. */
  #pump(): void {
    const connection = this.#connection;
    if (connection === undefined) {
      if (this.#queue.length > 0 && !this.#reconnecting) this.#reconnect();
      return;
    }
    let count = 0;
    for (const request of this.#queue) {
      const bytes = this.#bytesInFlight + request.data.length;
      if (connection.inFlight >= IN_FLIGHT_LIMIT) break;
      if (this.#bytesInFlight > 0 && bytes > BYTES_IN_FLIGHT_LIMIT) break;
      if (this.#options.keepWaiting) request.since = performance.now();
      this.#bytesInFlight = bytes;
      connection.send(request);
      count++;
    }
    this.#queue.splice(0, count);
  }

  #finished(
    connection: ClientConnection,
    request: ClientRequest,
    error: number,
    message: string,
  ): void {
    this.#bytesInFlight -= request.data.length;
    if (error === NBD_ERROR.ESHUTDOWN) {
      // It asks us to go: the request is for the server that comes after it.
      this.#requeue([request]);
      connection.drop(new ConnectionError("The server is shutting down"));
      return;
    }
    this.#forgetOutage();
    if (error !== 0) {
      request.reject(answeredError(this.#options.url, request, error, message));
    } else {
      if (request.changes) this.#options.ledger.acknowledge();
      else if (request.command === COMMAND.FLUSH) this.#options.ledger.flushed(request.mark);
      request.resolve();
    }
    this.#pump();
    if (this.#closing !== undefined) this.#disconnectWhenIdle();
  }

  #ended(reason: TelemapError, unanswered: ClientRequest[]): void {
    this.#connection = undefined;
    this.#bytesInFlight = 0;
    this.#failure = reason;
    this.#options.ledger.connectionLost();
    if (this.#closing !== undefined) {
      this.#requeue(unanswered);
      this.#closed();
      return;
    }
    if (reason instanceof ProtocolError) this.#blame(reason, unanswered);
    else this.#requeue(unanswered);
    this.#rejectDoubtful();
    if (!this.#options.keepWaiting) this.#rejectLate();
    if (this.#queue.length === 0) return;
    this.#options.log(
      `Lost the connection to ${this.#options.url} with ${this.#queue.length} requests waiting: ` +
        reason.message,
    );
    this.#pump();
  }

  /** Rejects what a server was to answer that broke the protocol instead. */
  #blame(reason: ProtocolError, unanswered: ClientRequest[]): void {
    const message = `${this.#options.url} broke the protocol: ${reason.message}`;
    for (const request of unanswered) request.reject(new ProtocolError(message, { cause: reason }));
  }

  /** Rejects every flush that another server could answer without having the writes before it. */
  #rejectDoubtful(): void {
    const { ledger, trustServer, url } = this.#options;
    const isDoubtful = ({ command, mark }: ClientRequest) =>
      !trustServer && command === COMMAND.FLUSH && ledger.isInDoubt(mark);
    const doubtful = this.#queue.filter(isDoubtful);
    this.#queue = this.#queue.filter((request) => !isDoubtful(request));
    for (const request of doubtful) request.reject(lostWritesError(url));
    for (const request of doubtful) ledger.report(request.mark);
  }

  /** Puts requests back to where they were in the order of submission. */
  #requeue(requests: ClientRequest[]): void {
    for (const request of requests) request.startOver();
    this.#queue = [...requests, ...this.#queue].sort((a, b) => a.sequence - b.sequence);
  }

  /** Tries to connect until it can, nothing waits for it any more, or the time is over. */
  async #reconnect(): Promise<void> {
    this.#reconnecting = true;
    this.#outageStart ??= performance.now();
    while (this.#isWanted() && this.#connection === undefined) {
      const { reconnectTimeout, keepWaiting } = this.#options;
      const left = keepWaiting
        ? Infinity
        : this.#outageStart + reconnectTimeout - performance.now();
      if (left <= 0) this.#failAll(this.#outageError());
      else await this.#attempt(left);
    }
    this.#reconnecting = false;
    if (this.#queue.length === 0) this.#forgetOutage();
    if (this.#closing === undefined) this.#pump();
    else if (this.#connection === undefined) this.#closed();
    else this.#disconnectWhenIdle();
  }

  async #attempt(left: number): Promise<void> {
    const { url, open, log } = this.#options;
    if (this.#attempts > 0) await this.#pause(Math.min(left, backoff(this.#attempts)));
    if (!this.#isWanted()) return;
    this.#attempts++;
    try {
      this.#connection = this.#connect(await open(left, this.#abort.signal));
      log(`Connected to ${url} again`);
    } catch (error) {
      this.#failure = error;
      if (isHopeless(error)) this.#failAll(error);
    }
  }

  #isWanted(): boolean {
    return this.#queue.length > 0 && this.#closing === undefined;
  }

  async #pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    const { signal } = this.#abort;
    signal.addEventListener("abort", () => resolve(), { once: true });
    await promise;
    clearTimeout(timer);
  }

  #outageError(): ConnectionError {
    const { url, reconnectTimeout } = this.#options;
    const why = this.#failure instanceof Error ? `: ${this.#failure.message}` : "";
    return new ConnectionError(`No connection to ${url} for ${reconnectTimeout} ms${why}`, {
      cause: this.#failure,
    });
  }

  #forgetOutage(): void {
    this.#attempts = 0;
    this.#outageStart = undefined;
  }

  #failAll(error: unknown): void {
    for (const request of this.#queue) request.reject(error);
    this.#queue = [];
  }

  /** Looks for late requests now and then while there are any. */
  #startWatch(): void {
    const { requestTimeout } = this.#options;
    if (this.#watch !== undefined || requestTimeout === Infinity) return;
    const interval = Math.min(WATCH_INTERVAL, Math.max(1, requestTimeout / 8));
    this.#watch = setInterval(() => this.#look(), interval);
  }

  #look(): void {
    if (this.load === 0) {
      this.#stopWatch();
      return;
    }
    const { url, requestTimeout, keepWaiting } = this.#options;
    for (const request of this.#connection?.requests() ?? []) {
      if (!this.#isLate(request)) continue;
      // Nothing tells a slow server from a dead one; a new connection does. Its end rejects.
      this.#connection?.drop(lateError(url, request, requestTimeout));
      break;
    }
    if (!keepWaiting) this.#rejectLate();
  }

  #isLate(request: ClientRequest): boolean {
    return performance.now() - request.since >= this.#options.requestTimeout;
  }

  #rejectLate(): void {
    const { url, requestTimeout } = this.#options;
    this.#queue = this.#queue.filter((request) => {
      if (!this.#isLate(request)) return true;
      request.reject(lateError(url, request, requestTimeout));
      return false;
    });
  }

  #stopWatch(): void {
    clearInterval(this.#watch);
    this.#watch = undefined;
  }

  #disconnectWhenIdle(): void {
    if (this.load === 0) this.#connection?.disconnect(this.#closedError());
  }

  #closed(): void {
    this.#failAll(this.#closedError());
    this.#stopWatch();
    this.#closing?.resolve();
  }

  #closedError(): ClosedError {
    return new ClosedError(`The connection to ${this.#options.url} was closed`);
  }
}

/** Whether trying again will not help. */
function isHopeless(error: unknown): boolean {
  return error instanceof ProtocolError || error instanceof IntegrityError ||
    error instanceof UnsupportedError || error instanceof UsageError;
}

/** Milliseconds before the attempt after so many; random, so that many clients spread out. */
function backoff(attempts: number): number {
  return Math.min(BACKOFF.most, BACKOFF.first * 2 ** (attempts - 1)) * (0.75 + Math.random() / 2);
}
