/**
 * What an HTTP server says of an object, of a range of it, and of why it gives neither (RFC 9110).
 *
 * @module
 */
import {
  ChangedError,
  ProtocolError,
  RemoteError,
  type TelemapError,
  UnsupportedError,
  UsageError,
} from "./errors.ts";
import { TransientError } from "./https_retry.ts";

/** An object as it was when it was opened, and how to tell whether it still is. */
export interface ObjectVersion {
  /** Bytes. */
  readonly size: number;
  /** The header of responses that tells this version from others. */
  readonly header: "etag" | "last-modified";
  /** What that header says as long as the object is the same, byte by byte. */
  readonly validator: string;
}

/** A range of bytes: from `start` to before `end`. */
export interface ByteRange {
  /** First byte. */
  readonly start: number;
  /** The byte behind the last one. */
  readonly end: number;
}

/** A response, as far as it is looked at here. */
export interface Answer {
  /** The status code. */
  readonly status: number;
  /** The headers. */
  readonly headers: Headers;
}

/** Milliseconds that a change may follow another one without a new Last-Modified. */
const DATE_RESOLUTION = 1000;

/** Statuses under 500 of a server that may well answer later: time out, too early, too many. */
const BUSY: readonly number[] = [408, 425, 429];

/** Statuses over 499 that stay as they are: not implemented, version not supported. */
const HOPELESS: readonly number[] = [501, 505];

/** The URL as it may be shown to anybody: without a password, and without a query, which may sign it. */
export function shownUrl(url: URL): string {
  return `${url.origin}${url.pathname}${url.search === "" ? "" : "?…"}`;
}

/** The header with which a request is refused once the object is another one. */
export function condition(version: ObjectVersion): [name: string, value: string] {
  const name = version.header === "etag" ? "if-match" : "if-unmodified-since";
  return [name, version.validator];
}

/**
 * Pins an object to what the headers of an answer say of it.
 *
 * @throws {UsageError} It is empty.
 * @throws {ProtocolError} It is longer than anything.
 * @throws {UnsupportedError} Nothing in them tells it from what may be there later.
 */
export function pinVersion(name: string, headers: Headers, size: number): ObjectVersion {
  if (size === 0) throw new UsageError(`Cannot open ${name} as it is empty`);
  if (!Number.isSafeInteger(size)) throw new ProtocolError(`${name} has more than 2^53 bytes`);
  const etag = headers.get("etag");
  // A weak one, W/"…", is kept for changes that somebody thinks do not matter (section 8.8.3).
  if (etag !== null && /^"[\x21\x23-\x7e\x80-\xff]*"$/.test(etag)) {
    return { size, header: "etag", validator: etag };
  }
  const modified = headers.get("last-modified");
  // It may change once more within the second that Last-Modified names (section 8.8.2.2).
  const age = Date.parse(headers.get("date") ?? "") - Date.parse(modified ?? "");
  if (modified !== null && age >= DATE_RESOLUTION) {
    return { size, header: "last-modified", validator: modified };
  }
  throw new UnsupportedError(
    `Cannot open ${name} as its server has no way to tell when it changes`,
    {
      hint: modified === null
        ? "the server has to send a strong ETag or Last-Modified"
        : "it was changed just now: try again in a second, or have the server send a strong ETag",
    },
  );
}

/**
 * The bytes of the object, by a 206 that is to hold exactly the range asked for.
 *
 * @throws {ProtocolError} It does not.
 */
export function checkPartial(name: string, { headers }: Answer, asked: ByteRange): number {
  checkPlain(name, headers);
  const text = headers.get("content-range") ?? "";
  const [, start, last, total] = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16})$/i.exec(text) ?? [];
  const size = Number(total);
  if (Number(start) !== asked.start || Number(last) !== asked.end - 1 || size < asked.end) {
    throw new ProtocolError(
      `${name} was asked for the bytes ${asked.start}-${asked.end - 1} and answered with the ` +
        `Content-Range ${JSON.stringify(text.slice(0, 100))}`,
    );
  }
  const length = headers.get("content-length");
  if (length !== null && Number(length) !== asked.end - asked.start) {
    throw new ProtocolError(`${name} answered a range with the Content-Length ${length}`);
  }
  return size;
}

/** Throws {@linkcode ProtocolError} where the body is compressed, though that was not accepted. */
export function checkPlain(name: string, headers: Headers): void {
  const encoding = headers.get("content-encoding") ?? "identity";
  if (encoding.toLowerCase() === "identity") return;
  throw new ProtocolError(`${name} is sent with the encoding ${encoding}`, {
    hint: "have the server send it as it is to who accepts nothing but identity",
  });
}

/**
 * Checks that an answer to a range of a pinned object is that range of that version.
 *
 * @throws {ChangedError} The object is another one by now.
 * @throws {TransientError} The server may answer later.
 * @throws {RemoteError} It refuses.
 * @throws {ProtocolError} It answers something else than was asked.
 */
export function checkAnswer(
  name: string,
  answer: Answer,
  asked: ByteRange,
  version: ObjectVersion,
): void {
  const { status, headers } = answer;
  if (status === 412) throw changed(name);
  if (status === 416 && !sameSize(headers, version)) throw changed(name);
  if (status !== 200 && status !== 206) throw refusal(name, status, headers);
  const found = headers.get(version.header);
  if (found !== null && found !== version.validator) throw changed(name);
  if (status === 200) {
    throw new ProtocolError(`${name} sends all of it where a range was asked for`);
  }
  if (found === null) {
    throw new ProtocolError(`${name} sends a range without the ${version.header} it had before`);
  }
  if (checkPartial(name, answer, asked) !== version.size) throw changed(name);
}

/** Whether a 416 says that the object has as many bytes as before, or does not say. */
function sameSize(headers: Headers, version: ObjectVersion): boolean {
  const total = /^bytes \*\/(\d+)$/i.exec(headers.get("content-range") ?? "")?.[1];
  return total === undefined || Number(total) === version.size;
}

function changed(name: string): ChangedError {
  return new ChangedError(`${name} has changed since it was opened`, {
    hint: "open it anew to read what is there now",
  });
}

/** What a status that is no success comes to. */
export function refusal(name: string, status: number, headers: Headers): Error {
  if (BUSY.includes(status) || (status >= 500 && !HOPELESS.includes(status))) {
    const wait = retryAfter(headers);
    const asks = wait === 0 ? "" : ` and asks to be left alone for ${Math.ceil(wait / 1000)} s`;
    return new TransientError(`it answered with status ${status}${asks}`, { retryAfter: wait });
  }
  return denial(name, status);
}

function denial(name: string, status: number): TelemapError {
  const answered = `${name} answered with status ${status}`;
  switch (status) {
    case 404:
    case 410:
      return new RemoteError("ENOENT", `${answered}: it is not there`);
    case 401:
    case 403:
      return new RemoteError("EACCES", `${answered}: it may not be read`, {
        hint: "put user and password into the URL as https://USER:PASSWORD@HOST/…, or sign it anew",
      });
    default:
      return new RemoteError("EIO", answered);
  }
}

/** Milliseconds that the server asks to be left alone, 0 where it does not. */
function retryAfter(headers: Headers): number {
  const text = headers.get("retry-after") ?? "";
  const wait = /^\d{1,9}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isNaN(wait) ? 0 : Math.max(0, wait);
}
