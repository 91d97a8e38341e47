/**
 * Connections that servers made to their client (`reverse_hello.ts`): greets those that come, and
 * keeps them until a lane takes one in place of dialling.
 *
 * @module
 */
import { ERRNO } from "../../ffi/errno.ts";
import { ClosedError, DeadlineError, ProtocolError } from "../backend/errors.ts";
import type { Dialler } from "../net/dial.ts";
import type { ByteConn } from "../net/reactor_conn.ts";
import { commonVersion, type Refusal, viewOf } from "./hello_prefix.ts";
import { readHello, writeHello } from "./hello_stream.ts";
import {
  decodeReverseHello,
  encodeReverseAnswer,
  encodeReverseRefusal,
  reverseHelloLength,
} from "./reverse_hello.ts";
import { TokenCheck, WRONG_TOKEN_MS, wrongToken } from "./token_check.ts";
import { VERSION } from "./wire.ts";

/** A connection that can be watched without taking bytes out of it. */
export interface WatchableConn extends ByteConn {
  /** Answers when there is something to read, be it the end or an error, or when it is closed. */
  readable(): Promise<void>;
}

/** How {@linkcode DialledConnections} treats those who dial. */
export interface DialledConnectionsOptions {
  /** Where they dial to, for messages. */
  url: string;
  /** The exports that connections are taken for. */
  names: readonly string[];
  /** What servers must show; they need not show anything unless told. */
  token?: string | undefined;
  /** How long a server may take for its hello, in ms; 10 s unless told. */
  helloMs?: number | undefined;
  /** How long a wrong token waits for its refusal, in ms; 250 unless told. */
  wrongTokenMs?: number | undefined;
  /** Connections that may wait for each export; 8 unless told. */
  waitingMost?: number | undefined;
}

/** Connections that may be at their hello at a time. */
const GREETED_MOST = 16;

/** Who waits for a connection. */
interface Taker {
  take: (conn: WatchableConn) => void;
  fail: (error: Error) => void;
}

/** What is there for one export; one of the two is empty. */
interface Line {
  /** The latest comes last: it is the likeliest to be alive, and goes first. */
  readonly waiting: WatchableConn[];
  readonly takers: Set<Taker>;
}

/** See the module. */
export class DialledConnections {
  readonly #options: DialledConnectionsOptions;
  readonly #token: TokenCheck;
  readonly #lines: Map<string, Line>;
  readonly #greeted = new Map<WatchableConn, Promise<void>>();
  #closed = false;

  /** Has no connections in the beginning. */
  constructor(options: DialledConnectionsOptions) {
    this.#options = options;
    this.#token = new TokenCheck(options.token);
    this.#lines = new Map(options.names.map((name) => [name, { waiting: [], takers: new Set() }]));
  }

  /** Takes a connection over that was just made: greets it, and keeps it or closes it. */
  welcome(conn: WatchableConn): void {
    if (this.#closed || this.#greeted.size >= GREETED_MOST) return conn.close();
    this.#greeted.set(conn, this.#receive(conn).finally(() => this.#greeted.delete(conn)));
  }

  /** How many connections wait for an export. */
  waiting(name: string): number {
    return this.#lineOf(name).waiting.length;
  }

  /** Answers when a connection waits for an export. Throws the reason of `signal` if it is aborted. */
  async arrived(name: string, signal?: AbortSignal): Promise<void> {
    const line = this.#lineOf(name);
    if (line.waiting.length > 0) return;
    this.#give(line, await this.#take(line, { signal }));
  }

  /**
   * Gives the connections for one export to whoever needs them. Its close closes nothing that
   * another one may take.
   */
  dialler(name: string): Dialler {
    const line = this.#lineOf(name);
    return { dial: (options) => this.#take(line, options), close: () => {} };
  }

  /** Closes what waits, and fails who waits. What was taken is not touched. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const conn of this.#greeted.keys()) conn.close();
    for (const { waiting, takers } of this.#lines.values()) {
      for (const conn of waiting.splice(0)) conn.close();
      for (const taker of takers) taker.fail(this.#closedError());
    }
    await Promise.all(this.#greeted.values());
  }

  #lineOf(name: string): Line {
    const line = this.#lines.get(name);
    if (line !== undefined) return line;
    throw new RangeError(
      `Cannot take connections for ${JSON.stringify(name)} as nobody expects any`,
    );
  }

  async #receive(conn: WatchableConn): Promise<void> {
    const timer = setTimeout(() => conn.close(), this.#options.helloMs ?? 10_000);
    try {
      const line = await this.#greet(conn);
      if (line === undefined) conn.close();
      else this.#give(line, conn);
    } catch {
      // Whoever dialled in is gone, or spoke something else to no end.
      conn.close();
    } finally {
      clearTimeout(timer);
    }
  }

  /** Hears a hello and answers it; where the connection goes, if it may stay. */
  async #greet(conn: WatchableConn): Promise<Line | undefined> {
    const answer = await this.#hear(conn);
    if ("code" in answer) {
      await writeHello(conn, encodeReverseRefusal(answer));
      return undefined;
    }
    await writeHello(conn, encodeReverseAnswer());
    return answer;
  }

  async #hear(conn: WatchableConn): Promise<Line | Refusal> {
    try {
      return await this.#judge(await readHello(conn, reverseHelloLength));
    } catch (error) {
      if (error instanceof ProtocolError) return { code: ERRNO.EPROTO, message: error.message };
      throw error;
    }
  }

  async #judge(bytes: Uint8Array): Promise<Line | Refusal> {
    if (commonVersion(viewOf(bytes), 0) === 0) {
      const message = `This client speaks versions ${VERSION.MIN} to ${VERSION.MAX} of the wire`;
      return { code: ERRNO.EPROTO, message };
    }
    const { name, token } = decodeReverseHello(bytes);
    if (!this.#token.admits(token)) {
      const { wrongTokenMs = WRONG_TOKEN_MS } = this.#options;
      await new Promise((resolve) => setTimeout(resolve, wrongTokenMs));
      return wrongToken(token);
    }
    const line = this.#lines.get(name);
    if (line === undefined) {
      const shown = JSON.stringify(name.slice(0, 100));
      return { code: ERRNO.ENOENT, message: `Nobody waits for an export named ${shown}` };
    }
    if (line.waiting.length < (this.#options.waitingMost ?? 8)) return line;
    return { code: ERRNO.EBUSY, message: "Enough connections wait here" };
  }

  #give(line: Line, conn: WatchableConn): void {
    if (this.#closed) return conn.close();
    const [taker] = line.takers;
    if (taker !== undefined) return taker.take(conn);
    line.waiting.push(conn);
    this.#watch(line, conn);
  }

  /** Drops a connection whose peer is gone, or speaks although it was asked nothing. */
  async #watch(line: Line, conn: WatchableConn): Promise<void> {
    await conn.readable();
    const at = line.waiting.indexOf(conn);
    if (at < 0) return;
    line.waiting.splice(at, 1);
    conn.close();
  }

  #take(
    line: Line,
    { timeout, signal }: { timeout?: number; signal?: AbortSignal | undefined },
  ): Promise<WatchableConn> {
    if (signal?.aborted === true) return Promise.reject(signal.reason);
    if (this.#closed) return Promise.reject(this.#closedError());
    const newest = line.waiting.pop();
    if (newest !== undefined) return Promise.resolve(newest);
    const { promise, resolve, reject } = Promise.withResolvers<WatchableConn>();
    const over = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      line.takers.delete(taker);
    };
    const taker: Taker = {
      take: (conn) => {
        over();
        resolve(conn);
      },
      fail: (error) => {
        over();
        reject(error);
      },
    };
    const abort = () => taker.fail(signal?.reason);
    const timer = timeout === undefined
      ? undefined
      : setTimeout(() => taker.fail(this.#nobody(timeout)), timeout);
    signal?.addEventListener("abort", abort);
    line.takers.add(taker);
    return promise;
  }

  #nobody(timeout: number): DeadlineError {
    return new DeadlineError(`Nobody dialled ${this.#options.url} within ${timeout} ms`, {
      hint: "is the server running, and does it dial this address?",
    });
  }

  #closedError(): ClosedError {
    return new ClosedError(`Cannot take connections at ${this.#options.url} any more`);
  }
}
