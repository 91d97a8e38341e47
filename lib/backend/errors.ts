/**
 * The errors that telemap throws on purpose, beside `SystemError` (a system call failed) and
 * `RangeError` (an offset or length outside the region).
 *
 * Each has a `code`, an errno name, so that a server can pass the kind on by any protocol.
 *
 * @module
 */

/** What every error here takes beside its message. */
export interface TelemapErrorOptions extends ErrorOptions {
  /** What the reader can do about it; added to the message. */
  hint?: string;
}

/** The base of telemap's own errors. */
export class TelemapError extends Error {
  /** The errno name that stands for this kind on a wire, e.g. `EIO`. */
  readonly code: string;
  /** What the reader can do about it. */
  readonly hint: string | undefined;

  /** Makes an error whose message ends with the hint. */
  constructor(code: string, message: string, options: TelemapErrorOptions = {}) {
    super(options.hint === undefined ? message : `${message}; ${options.hint}`, options);
    this.name = new.target.name;
    this.code = code;
    this.hint = options.hint;
  }
}

/** The caller asked for something that is not well-formed: a bad URL, size or option (exit code 2). */
export class UsageError extends TelemapError {
  /** Makes the error. */
  constructor(message: string, options?: TelemapErrorOptions) {
    super("EINVAL", message, options);
  }
}

/** A write, zero or discard reached a region that may only be read. */
export class ReadOnlyError extends TelemapError {
  /** Makes the error. */
  constructor(message = "Cannot write as the region is read-only", options?: TelemapErrorOptions) {
    super("EPERM", message, options);
  }
}

/** A region may not be used here, as another host owns it, or may. */
export class FencedError extends TelemapError {
  /** Makes the error. */
  constructor(message: string, options?: TelemapErrorOptions) {
    super("EROFS", message, options);
  }
}

/** A call reached something that is closed already. */
export class ClosedError extends TelemapError {
  /** Makes the error. */
  constructor(message: string, options?: TelemapErrorOptions) {
    super("ESHUTDOWN", message, options);
  }
}

/** A peer did not answer in time. */
export class DeadlineError extends TelemapError {
  /** Makes the error. */
  constructor(message: string, options?: TelemapErrorOptions) {
    super("ETIMEDOUT", message, options);
  }
}

/** The connection to a peer was lost or could not be made. */
export class ConnectionError extends TelemapError {
  /** Makes the error. */
  constructor(message: string, options?: TelemapErrorOptions) {
    super("ENOTCONN", message, options);
  }
}

/** A peer broke the protocol; nothing more can be read from that connection. */
export class ProtocolError extends TelemapError {
  /** Makes the error. */
  constructor(message: string, options?: TelemapErrorOptions) {
    super("EPROTO", message, options);
  }
}

/** Bytes did not match their checksum, or a store does not hold what it says it holds. */
export class IntegrityError extends TelemapError {
  /** Makes the error. */
  constructor(message: string, options?: TelemapErrorOptions) {
    super("EIO", message, options);
  }
}

/** What was opened is another thing by now: bytes of the two must not be mixed. */
export class ChangedError extends TelemapError {
  /** Makes the error. */
  constructor(message: string, options?: TelemapErrorOptions) {
    super("ESTALE", message, options);
  }
}

/** This store, device or host cannot do that; the caller may have another way. */
export class UnsupportedError extends TelemapError {
  /** Makes the error. */
  constructor(message: string, options?: TelemapErrorOptions) {
    super("EOPNOTSUPP", message, options);
  }
}

/** A peer answered with an error of its own; `code` is what it sent. */
export class RemoteError extends TelemapError {}

/** The errno name of any error, for a wire: its `code` where it has one, else `EIO`. */
export function errorCode(error: unknown): string {
  if (error instanceof RangeError) return "EINVAL";
  if (error instanceof Error && "code" in error && typeof error.code === "string") {
    return error.code;
  }
  return "EIO";
}
