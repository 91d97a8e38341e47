/**
 * Single HTTP requests: sent along redirects, watched while they are under way, their body received
 * where it is wanted.
 *
 * @module
 */
import { ProtocolError } from "./errors.ts";
import { shownUrl } from "./https_object.ts";
import { TransientError } from "./https_retry.ts";

/** What to send. */
export interface RequestOptions {
  /** The method. */
  method: "GET" | "HEAD";
  /** Headers beside those that every request has. */
  headers?: Record<string, string>;
  /** Ends it; what it throws then is the signal's reason. */
  signal: AbortSignal;
}

/** A response, and where it came from in the end. */
export interface Reply {
  /** The response, no redirect. */
  response: Response;
  /** The last URL. */
  url: URL;
}

const REDIRECTS: readonly number[] = [301, 302, 303, 307, 308];

/** Redirects that a request follows at most. */
const REDIRECTS_MAX = 10;

/**
 * Sends a request and follows redirects, but not from https to anything else. The caller receives
 * or cancels the body.
 *
 * @throws {TransientError} There was no answer.
 * @throws {ProtocolError} It is redirected where it must not go, or for ever.
 */
export async function request(url: URL, options: RequestOptions): Promise<Reply> {
  const { method, signal } = options;
  // Bytes of a compressed form would lie elsewhere than those of the object.
  const headers = { ...options.headers, "accept-encoding": "identity" };
  for (let redirects = 0, at = url; redirects <= REDIRECTS_MAX; redirects++) {
    const response = await answered(fetch(at, { method, headers, signal, redirect: "manual" }));
    if (!REDIRECTS.includes(response.status)) return { response, url: at };
    await response.body?.cancel();
    at = redirected(at, response.headers.get("location") ?? "");
  }
  throw new ProtocolError(`${shownUrl(url)} is redirected more than ${REDIRECTS_MAX} times`);
}

function redirected(from: URL, location: string): URL {
  const to = URL.parse(location, from);
  if (to === null || !(to.protocol === from.protocol || to.protocol === "https:")) {
    throw new ProtocolError(
      `${shownUrl(from)} is redirected to ${to === null ? "nowhere" : shownUrl(to)}`,
      { hint: "it may lead to https, or from http to http" },
    );
  }
  if (to.origin === from.origin) [to.username, to.password] = [from.username, from.password];
  return to;
}

/**
 * Receives a body that is to fill the buffer, and says of each part that came how many bytes it has.
 *
 * @throws {TransientError} The connection was cut, or it ended too early; the beginning is right.
 * @throws {ProtocolError} There is more of it.
 */
export async function receive(
  name: string,
  response: Response,
  buffer: Uint8Array,
  onBytes: (count: number) => void,
): Promise<void> {
  let received = 0;
  const reader = response.body?.getReader();
  while (reader !== undefined) {
    const { value, done } = await answered(reader.read());
    if (done) break;
    if (value.length > buffer.length - received) {
      await reader.cancel();
      throw new ProtocolError(`${name} sends more than the ${buffer.length} bytes asked for`);
    }
    buffer.set(value, received);
    received += value.length;
    onBytes(value.length);
  }
  if (received === buffer.length) return;
  throw new TransientError(`it was cut off after ${received} of ${buffer.length} bytes`, {
    unanswered: true,
  });
}

/** What a promise of `fetch` comes to; a `TypeError` of it is a failure of the network. */
async function answered<T>(promise: Promise<T>): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new TransientError(networkFailure(error), { unanswered: true, cause: error });
  }
}

/** Why the network failed, without the URL, which may hold secrets. */
function networkFailure({ message, cause }: TypeError): string {
  const text = cause instanceof Error ? cause.message : message;
  return /client error \([A-Za-z]+\): (.*)$/s.exec(text)?.[1] ?? message;
}

/** Ends a request that nothing comes of for a while. */
export class Watch implements Disposable {
  readonly #controller = new AbortController();
  readonly #silence: number;
  readonly #deadline: number;
  #heard = performance.now();
  #timer: ReturnType<typeof setTimeout> | undefined;

  /**
   * Aborts with a {@linkcode TransientError} after `silence` ms with no {@linkcode heard}, and at
   * the deadline (ms of `performance.now()`).
   */
  constructor(silence: number, deadline: number) {
    this.#silence = silence;
    this.#deadline = deadline;
    this.#look();
  }

  /** For the request. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Says that something came. */
  heard(): void {
    this.#heard = performance.now();
  }

  /** Ends the watch. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  #look(): void {
    const now = performance.now();
    const limit = Math.min(this.#heard + this.#silence, this.#deadline);
    if (now < limit) {
      this.#timer = setTimeout(() => this.#look(), Math.ceil(limit - now));
      return;
    }
    const silent = Math.round(now - this.#heard);
    this.#controller.abort(
      new TransientError(`nothing came for ${silent} ms`, { unanswered: true }),
    );
  }
}
