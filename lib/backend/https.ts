/**
 * An object of an HTTP server as a read-only backend, by range requests:
 * `https://HOST[:PORT]/PATH[?QUERY]`, or `http://`.
 *
 * The object is pinned to what it was when it was opened, by its strong ETag or else by its
 * Last-Modified: each answer has to be of that version, or the read fails.
 *
 * @module
 */
import { type Backend, checkRange } from "./backend.ts";
import {
  ClosedError,
  ConnectionError,
  ReadOnlyError,
  UnsupportedError,
  UsageError,
} from "./errors.ts";
import {
  checkAnswer,
  checkPartial,
  checkPlain,
  condition,
  type ObjectVersion,
  pinVersion,
  refusal,
  shownUrl,
} from "./https_object.ts";
import { receive, type Reply, request, Watch } from "./https_request.ts";
import { retrying, TransientError } from "./https_retry.ts";
import { Semaphore } from "./semaphore.ts";
import { settleAll } from "./settle.ts";

/** How {@linkcode openHttps} opens; times in milliseconds. */
export interface OpenHttpsOptions {
  /** Time for opening, with all that has to be tried again; default 10 000. */
  openTimeout?: number;
  /** Time for a read of up to 8 MiB, or for each 8 MiB of a longer one, likewise; default 60 000. */
  readTimeout?: number;
  /** Time without a byte after which a request is given up and tried again; default 10 000. */
  silenceTimeout?: number;
  /** Takes a line when reads begin to fail or are answered again; default `console.warn`. */
  log?: (line: string) => void;
}

/** Bytes that one request asks for at most, so that {@linkcode OpenHttpsOptions.readTimeout} is fair. */
const RANGE_LIMIT = 8 << 20;

/** Requests of one object in flight at a time. */
const REQUESTS_LIMIT = 16;

/** Statuses with which a server may refuse HEAD though it answers GET; signed URLs are for one method. */
const HEAD_REFUSED: readonly number[] = [400, 403, 405, 501];

/** Statuses of the end of a redirect that is good for a while only. */
const EXPIRED: readonly number[] = [400, 401, 403, 404, 410];

/**
 * Opens an object, which has to be one that can be read in ranges and that has a strong ETag or a
 * Last-Modified.
 *
 * @throws {UsageError} The URL is wrong, or the object is empty.
 * @throws {UnsupportedError} The server has no ranges, or no way to tell when the object changes.
 * @throws {ConnectionError} There is no connection.
 * @throws {DeadlineError} The server did not answer, or not with more than its being busy, in time.
 * @throws {RemoteError} It refuses; code ENOENT where it has no such object, EACCES where it may
 * not be read.
 * @throws {ProtocolError} It does not keep to HTTP.
 */
export async function openHttps(
  target: string | URL,
  options: OpenHttpsOptions = {},
): Promise<HttpsBackend> {
  const url = parseUrl(target);
  const { openTimeout = 10_000, silenceTimeout = 10_000 } = options;
  const deadline = performance.now() + openTimeout;
  const probe = async () => {
    using watch = new Watch(silenceTimeout, deadline);
    return await probeByHead(url, watch) ?? await probeByRange(url, watch);
  };
  const found = await retrying(unlessUnanswered(url, probe), {
    what: `open ${shownUrl(url)}`,
    deadline,
    signal: new AbortController().signal,
    onFailure: () => {},
  });
  return new HttpsBackend(url, found, options);
}

/** An object that was found, and where. */
interface FoundObject {
  version: ObjectVersion;
  url: URL;
}

function parseUrl(target: string | URL): URL {
  const url = URL.parse(String(target));
  const reason = url === null
    ? "it is malformed"
    : !/^https?:$/.test(url.protocol)
    ? "it is neither https nor http"
    : url.hash !== ""
    ? "it has a fragment"
    : undefined;
  if (url !== null && reason === undefined) return url;
  throw new UsageError(`Cannot use the URL ${url === null ? target : shownUrl(url)} as ${reason}`, {
    hint: "it has to be as https://host/path, with %23 for # in the path",
  });
}

/** Fails at once where there is no answer: at first, a wrong URL is likelier than a bad network. */
function unlessUnanswered<T>(url: URL, probe: () => Promise<T>): () => Promise<T> {
  return async () => {
    try {
      return await probe();
    } catch (error) {
      if (!(error instanceof TransientError) || !error.unanswered) throw error;
      throw new ConnectionError(`Cannot reach ${shownUrl(url)}: ${error.message}`, {
        cause: error,
      });
    }
  };
}

/** Asks without asking for bytes; undefined where the answer leaves something open. */
async function probeByHead(target: URL, { signal }: Watch): Promise<FoundObject | undefined> {
  const name = shownUrl(target);
  const { response: { status, headers }, url } = await request(target, { method: "HEAD", signal });
  if (HEAD_REFUSED.includes(status)) return undefined;
  if (status !== 200) throw refusal(name, status, headers);
  const length = headers.get("content-length") ?? "", ranges = headers.get("accept-ranges") ?? "";
  if (ranges.toLowerCase() !== "bytes" || !/^\d{1,16}$/.test(length)) return undefined;
  checkPlain(name, headers);
  return { version: pinVersion(name, headers, Number(length)), url };
}

/** Asks for the first byte. */
async function probeByRange(target: URL, watch: Watch): Promise<FoundObject> {
  const name = shownUrl(target);
  const range = { start: 0, end: 1 };
  const { response, url } = await request(target, {
    method: "GET",
    headers: { range: "bytes=0-0" },
    signal: watch.signal,
  });
  const { status, headers } = response;
  if (status !== 206) {
    await response.body?.cancel();
    if (status === 416) throw new UsageError(`Cannot open ${name} as it is empty`);
    if (status !== 200) throw refusal(name, status, headers);
    throw new UnsupportedError(`Cannot open ${name} as its server sends no ranges of it`, {
      hint: "copy it to a file, and open that",
    });
  }
  try {
    const size = checkPartial(name, response, range);
    const version = pinVersion(name, headers, size);
    await receive(name, response, new Uint8Array(1), () => watch.heard());
    return { version, url };
  } catch (error) {
    if (!response.body?.locked) await response.body?.cancel();
    throw error;
  }
}

/** An object of an HTTP server. Made by {@linkcode openHttps}. */
export class HttpsBackend implements Backend {
  readonly size: number;
  readonly blockSize = 1;
  /** Nothing is ever written that could be lost. */
  readonly durable = true;
  readonly readOnly = true;
  /** The ETag or Last-Modified that every answer has to have. */
  readonly version: string;
  readonly #name: string;
  readonly #url: URL;
  /** Where redirects led to last. */
  #place: URL;
  readonly #pin: ObjectVersion;
  readonly #readTimeout: number;
  readonly #silenceTimeout: number;
  readonly #log: (line: string) => void;
  readonly #turns = new Semaphore(REQUESTS_LIMIT);
  readonly #closing = new AbortController();
  readonly #underWay = new Set<Promise<void>>();
  /** When bytes came last, as `performance.now()` counts. */
  #heard = -Infinity;
  /** Whether the log says that reads fail. */
  #failing = false;

  /** Takes over an object that was found. */
  constructor(url: URL, found: FoundObject, options: OpenHttpsOptions) {
    this.#url = url;
    this.#place = found.url;
    this.#pin = found.version;
    this.#name = shownUrl(url);
    this.size = found.version.size;
    this.version = found.version.validator;
    this.#readTimeout = options.readTimeout ?? 60_000;
    this.#silenceTimeout = options.silenceTimeout ?? 10_000;
    this.#log = options.log ?? console.warn;
  }

  /**
   * Reads by one request for each 8 MiB.
   *
   * @throws {ChangedError} The object is another one by now.
   * @throws {DeadlineError} Nothing that was tried worked in time.
   * @throws {RemoteError} The server refuses.
   * @throws {ProtocolError} It answers something else than was asked.
   */
  async readAt(buffer: Uint8Array, offset: number): Promise<void> {
    this.#check(offset, buffer.length);
    const parts: Promise<void>[] = [];
    for (let done = 0; done < buffer.length; done += RANGE_LIMIT) {
      parts.push(this.#readPart(buffer.subarray(done, done + RANGE_LIMIT), offset + done));
    }
    await settleAll(parts);
  }

  /** Throws. */
  writeAt(buffer: Uint8Array, offset: number): void {
    this.#check(offset, buffer.length);
    throw new ReadOnlyError();
  }

  /** Does nothing. */
  flush(): void {
    this.#checkOpen();
  }

  /** Ends what is under way, and waits until no buffer is in use any more. */
  async close(): Promise<void> {
    this.#closing.abort(this.#closedError());
    await Promise.allSettled(this.#underWay);
  }

  /** As {@linkcode close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #readPart(buffer: Uint8Array, offset: number): Promise<void> {
    const asked = performance.now();
    const part = this.#turns.run(async () => {
      // Who waited in line while nothing came at all has waited long enough.
      const deadline = Math.max(asked, this.#heard) + this.#readTimeout;
      await this.#fill(buffer, offset, deadline);
    });
    this.#underWay.add(part);
    try {
      await part;
    } finally {
      this.#underWay.delete(part);
    }
  }

  /** Asks for what is missing until nothing is. */
  async #fill(buffer: Uint8Array, offset: number, deadline: number): Promise<void> {
    let filled = 0;
    const attempt = async () => {
      this.#checkOpen();
      using watch = new Watch(this.#silenceTimeout, deadline);
      await this.#receiveRange(buffer.subarray(filled), offset + filled, watch, (count) => {
        filled += count;
      });
    };
    await retrying(attempt, {
      what: `read ${buffer.length} bytes at offset ${offset} of ${this.#name}`,
      deadline,
      signal: this.#closing.signal,
      onFailure: (failure) => this.#sayFailing(failure),
    });
    this.#sayAnswered();
  }

  async #receiveRange(
    buffer: Uint8Array,
    start: number,
    watch: Watch,
    onBytes: (count: number) => void,
  ): Promise<void> {
    const range = { start, end: start + buffer.length };
    const { response, url } = await this.#request(range.start, range.end, watch);
    try {
      checkAnswer(this.#name, response, range, this.#pin);
    } catch (error) {
      await response.body?.cancel();
      throw error;
    }
    this.#place = url;
    await receive(this.#name, response, buffer, (count) => {
      this.#heard = performance.now();
      watch.heard();
      onBytes(count);
    });
  }

  /** Sends a request to where redirects led to last, or anew where that is no more. */
  async #request(start: number, end: number, watch: Watch): Promise<Reply> {
    const [name, value] = condition(this.#pin);
    const headers = { range: `bytes=${start}-${end - 1}`, [name]: value };
    const signal = AbortSignal.any([watch.signal, this.#closing.signal]);
    const place = this.#place;
    const reply = await request(place, { method: "GET", headers, signal });
    if (place === this.#url || !EXPIRED.includes(reply.response.status)) return reply;
    await reply.response.body?.cancel();
    return await request(this.#url, { method: "GET", headers, signal });
  }

  #sayFailing(failure: TransientError): void {
    if (this.#failing) return;
    this.#failing = true;
    this.#log(`Reads of ${this.#name} wait and are tried again: ${failure.message}`);
  }

  #sayAnswered(): void {
    if (!this.#failing) return;
    this.#failing = false;
    this.#log(`${this.#name} is read again`);
  }

  #check(offset: number, length: number): void {
    this.#checkOpen();
    checkRange(this.size, offset, length);
  }

  #checkOpen(): void {
    if (this.#closing.signal.aborted) throw this.#closedError();
  }

  #closedError(): ClosedError {
    return new ClosedError(`Cannot use ${this.#name} as it was closed`);
  }
}
