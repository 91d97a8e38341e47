/**
 * One lane of a session with a server of the native wire: it outlives its connections. Requests
 * that had no answer when a connection ended are sent again on the next one; all of them may be.
 *
 * @module
 */
import {
  ClosedError,
  DeadlineError,
  IntegrityError,
  ProtocolError,
  type TelemapError,
} from "../backend/errors.ts";
import type { FlushLedger } from "../backend/flush_ledger.ts";
import type { Traffic } from "../backend/backend.ts";
import type { Address } from "../net/address.ts";
import type { Dialler } from "../net/dial.ts";
import type { Reactor } from "../net/reactor.ts";
import { CompressionChoice, type CompressionMode } from "./compression.ts";
import { WireConnection } from "./connection.ts";
import { Exchange } from "./exchange.ts";
import type { ServerHello } from "./hello.ts";
import { WireRequest } from "./request.ts";
import { FEATURE, Frame, type Lane, LIMIT, TYPE } from "./wire.ts";

/** How a lane behaves; times in ms. */
export interface LaneOptions {
  /** Where it leads to. */
  address: Address;
  /** The same, for messages. */
  url: string;
  /** Which lane this is. */
  lane: Lane;
  /** 16 random bytes. */
  session: Uint8Array;
  /** What the server wants to see. */
  token: string;
  /** So long a connection may take to be made. */
  connectTimeout: number;
  /** So long a server may be silent that owes an answer. */
  requestTimeout: number;
  /** Requests wait for as long as it takes, instead of failing after the request timeout. */
  keepWaiting: boolean;
  /** Where connections come from instead of being made to the address. */
  dialler: Dialler | undefined;
  /** What connections depend on; the runtime's event loop unless told. */
  reactor: Reactor | undefined;
  /** When contents are compressed. */
  compression: CompressionMode;
  /** What flushes may promise; shared by the lanes of a session. */
  ledger: FlushLedger;
  /** Counts what is sent and received; shared likewise. */
  traffic: Traffic;
  /** A connection is there. Throws {@linkcode IntegrityError} where it leads to another region. */
  onConnected: (server: ServerHello, lane: WireLane) => void;
  /** A connection was lost, or could not be made again. */
  onLost: (reason: Error, lane: WireLane) => void;
}

const IN_FLIGHT = 256;
const BACKOFF_MS = { FIRST: 10, MOST: 5000 };
/** A request is given up after it was in flight on so many connections that broke the protocol. */
const BROKEN_MOST = 3;
const CLOSED = "Cannot go on as the backend is closed";

/** See the module. */
export class WireLane {
  readonly #options: LaneOptions;
  readonly #reads: CompressionChoice;
  readonly #writes: CompressionChoice;
  readonly #abort = new AbortController();
  #queue: WireRequest[] = [];
  #connection: WireConnection | undefined;
  #exchange: Exchange | undefined;
  #attempt = 0;
  /** The first connection, where it is made ahead. */
  #ahead: Promise<WireConnection> | undefined;
  #failure: Error | undefined;
  /** Why there is no connection. */
  #lossReason: Error | undefined;
  #watch: ReturnType<typeof setInterval> | undefined;
  #pingedAt = 0;
  #wakeBackOff: (() => void) | undefined;
  #running: Promise<void> = Promise.resolve();

  /**
   * Whether a change was given up that the server may still carry out: whatever is to come after
   * it must wait until this lane is connected again, as that fences the old connection.
   */
  uncertain = false;

  /** Makes a lane that is not connected. */
  constructor(options: LaneOptions) {
    this.#options = options;
    this.#reads = new CompressionChoice(options.compression);
    this.#writes = new CompressionChoice(options.compression);
  }

  /** Begins to connect; what becomes of that is seen once the lane is to be connected. */
  connectAhead(): void {
    this.#ahead = this.#open();
    this.#ahead.catch(() => {});
  }

  /** Connects for the first time; throws where that fails. */
  async connect(): Promise<void> {
    const connection = await this.#open();
    this.#begin(connection);
    this.start();
  }

  /** Keeps connected from now on, in the background. */
  start(): void {
    const { requestTimeout } = this.#options;
    const tick = Math.min(Math.max(requestTimeout / 10, 10), 1000);
    const watch = setInterval(() => this.#check(), tick);
    Deno.unrefTimer(watch);
    this.#watch = watch;
    this.#running = this.#run();
  }

  /** Takes a request; its promise settles with the answer. */
  submit(request: WireRequest): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#exchange?.hasRoom === true && this.#queue.length === 0) this.#send(request);
    else this.#queue.push(request);
    return request.promise;
  }

  /** Fails what has no answer, and disconnects. */
  async close(): Promise<void> {
    this.#connection?.send(new Frame().set(TYPE.BYE, 0, 0, 0), new Uint8Array(0));
    this.#fail(new ClosedError(CLOSED));
    await this.#running;
  }

  #sendQueued(): void {
    while (this.#queue.length > 0 && this.#exchange?.hasRoom === true) {
      this.#send(this.#queue.shift()!);
    }
  }

  #send(request: WireRequest): void {
    if (request.settled) return;
    const { ledger, url } = this.#options;
    if (request.type === TYPE.FLUSH && ledger.isInDoubt(request.mark)) {
      ledger.report(request.mark);
      return request.reject(lostWrites(url));
    }
    this.#exchange!.send(request);
  }

  async #open(): Promise<WireConnection> {
    const { address, connectTimeout, lane, session, token, traffic } = this.#options;
    const { dialler, reactor } = this.#options;
    const connection = await WireConnection.open({
      ...{ address, dialler, reactor, traffic },
      timeout: connectTimeout,
      signal: this.#abort.signal,
      hello: {
        ...{ lane, session, token, name: address.name, attempt: ++this.#attempt },
        features: FEATURE.CRC32 | FEATURE.ZSTD | FEATURE.CONTROL,
        payloadMax: LIMIT.PAYLOAD_MAX,
        inFlightMax: IN_FLIGHT,
      },
    });
    try {
      if (this.#failure !== undefined) throw this.#failure;
      this.#options.onConnected(connection.server, this);
      return connection;
    } catch (error) {
      connection.drop(new ClosedError(CLOSED));
      throw error;
    }
  }

  #begin(connection: WireConnection): void {
    if (this.#failure !== undefined) {
      connection.drop(new ClosedError(CLOSED));
      throw this.#failure;
    }
    const { url, ledger } = this.#options;
    this.#connection = connection;
    this.#lossReason = undefined;
    this.uncertain = false;
    this.#pingedAt = performance.now();
    this.#exchange = new Exchange(connection, {
      ...{ url, ledger, reads: this.#reads, writes: this.#writes },
      repeat: (request) => void this.#queue.unshift(request),
      answered: () => this.#sendQueued(),
    });
    this.#sendQueued();
  }

  /** Has a connection, again and again, until the lane fails or is closed. */
  async #run(): Promise<void> {
    let failures = 0;
    while (this.#failure === undefined) {
      try {
        if (this.#connection === undefined) this.#begin(await this.#next());
      } catch (error) {
        if (this.#failure !== undefined) return;
        if (error instanceof IntegrityError) return this.#fail(error);
        this.#noticeLoss(error as Error);
        // Who waits for the server to dial must be there when it does.
        const waited = this.#options.dialler !== undefined && error instanceof DeadlineError;
        if (!waited) await this.#backOff(failures++);
        continue;
      }
      const reason = await this.#connection!.ended;
      if (this.#failure !== undefined) return;
      const answered = this.#exchange!.answeredAt > 0;
      this.#lost(reason);
      if (answered) failures = 0;
      else await this.#backOff(failures++);
    }
  }

  #next(): Promise<WireConnection> {
    const ahead = this.#ahead;
    this.#ahead = undefined;
    return ahead ?? this.#open();
  }

  #lost(reason: TelemapError): void {
    const unanswered = this.#exchange!.unanswered.filter((request) =>
      !request.settled && !this.#isBroken(request, reason)
    );
    this.#connection = this.#exchange = undefined;
    this.#queue = [...unanswered, ...this.#queue];
    this.#noticeLoss(reason);
  }

  #noticeLoss(reason: Error): void {
    this.#lossReason = reason;
    this.#options.onLost(reason, this);
  }

  /** Gives a request up that breaks connections: nothing is to be had by going on. */
  #isBroken(request: WireRequest, reason: TelemapError): boolean {
    if (!(reason instanceof ProtocolError) || ++request.broken < BROKEN_MOST) return false;
    request.reject(reason);
    return true;
  }

  async #backOff(failures: number): Promise<void> {
    const most = Math.min(BACKOFF_MS.FIRST * 2 ** failures, BACKOFF_MS.MOST);
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, most * (0.5 + Math.random() / 2));
    this.#wakeBackOff = resolve;
    if (this.#failure === undefined) await promise;
    clearTimeout(timer);
  }

  /** Looks after what is late. */
  #check(): void {
    const { requestTimeout: deadline, keepWaiting, url } = this.#options;
    const now = performance.now();
    if (!keepWaiting) this.#giveUpLate(now);
    const connection = this.#connection, exchange = this.#exchange;
    if (connection === undefined || exchange === undefined) {
      // What was given up would be kept for as long as the server is away.
      this.#queue = this.#queue.filter((request) => !request.settled);
      return;
    }
    const { oldest } = exchange;
    const since = oldest?.sentAt ?? connection.lastProgress;
    const silent = oldest !== undefined &&
      now - Math.max(since, connection.lastProgress) > deadline;
    const late = silent ? deadline : exchange.passedOver(deadline);
    if (late !== undefined) {
      connection.drop(new DeadlineError(`${url} did not answer within ${late} ms`));
    } else if (now - Math.max(since, this.#pingedAt) > deadline / 3) {
      this.#pingedAt = now;
      this.#ping(exchange);
    }
  }

  #ping(exchange: Exchange): void {
    const ping = new WireRequest(TYPE.PING, 0, 0);
    // Nobody waits for it: what is late is seen by the next check.
    ping.promise.catch(() => {});
    exchange.send(ping);
  }

  /** Fails requests whose deadline is over, and drops a connection that owes an answer to one. */
  #giveUpLate(now: number): void {
    const { requestTimeout: deadline, url } = this.#options;
    const error = new DeadlineError(`${url} did not answer within ${deadline} ms`, {
      ...(this.#lossReason && { hint: this.#lossReason.message, cause: this.#lossReason }),
    });
    const isLate = ({ settled, since, timeout = deadline }: WireRequest) =>
      !settled && now - since > timeout;
    const late = this.#exchange?.unanswered.filter(isLate) ?? [];
    for (const request of [...late, ...this.#queue.filter(isLate)]) request.reject(error);
    this.#queue = this.#queue.filter((request) => !request.settled);
    if (late.length === 0) return;
    this.uncertain ||= late.some((request) => request.changes);
    this.#connection!.drop(error);
  }

  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    clearInterval(this.#watch);
    this.#abort.abort(error);
    this.#wakeBackOff?.();
    const closed = new ClosedError(CLOSED);
    this.#connection?.drop(closed);
    this.#ahead?.then((connection) => connection.drop(closed), () => {});
    const unanswered = this.#exchange?.unanswered ?? [];
    for (const request of [...unanswered, ...this.#queue]) request.reject(error);
    this.#connection = this.#exchange = undefined;
    this.#queue = [];
  }
}

function lostWrites(url: string): IntegrityError {
  return new IntegrityError(
    `${url} was started anew before writes that it had acknowledged were flushed`,
    { hint: "those writes may be lost; write again what must be there, and flush" },
  );
}
