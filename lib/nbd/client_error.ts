/**
 * The errors of single requests of the client, with what was asked of whom.
 *
 * @module
 */
import {
  DeadlineError,
  IntegrityError,
  RemoteError,
  type TelemapError,
  UnsupportedError,
} from "../backend/errors.ts";
import { COMMAND, NBD_ERROR } from "./constants.ts";
import type { RequestHeader } from "./request_header.ts";

const CODES = new Map<number, string>(
  Object.entries(NBD_ERROR).map(([name, number]) => [number, name]),
);

const VERBS = new Map<number, string>([
  [COMMAND.READ, "read"],
  [COMMAND.WRITE, "write"],
  [COMMAND.TRIM, "discard"],
  [COMMAND.WRITE_ZEROES, "zero"],
  [COMMAND.BLOCK_STATUS, "tell the extents of"],
]);

/** The server answered with an error number; one that is not known counts as EINVAL (spec). */
export function answeredError(
  url: string,
  request: RequestHeader,
  error: number,
  message: string,
): TelemapError {
  const code = CODES.get(error) ?? "EINVAL";
  const text = `${url} could not ${described(request)}: ${code}${message && ` (${message})`}`;
  return error === NBD_ERROR.ENOTSUP ? new UnsupportedError(text) : new RemoteError(code, text);
}

/** The server did not answer in time. */
export function lateError(url: string, request: RequestHeader, timeout: number): DeadlineError {
  return new DeadlineError(`${url} did not ${described(request)} within ${timeout} ms`);
}

/** A flush cannot vouch for writes of a connection that was lost. */
export function lostWritesError(url: string): IntegrityError {
  return new IntegrityError(
    `${url} may have lost writes that it acknowledged but had not flushed, as the connection ` +
      "was lost and the server may have restarted",
    { hint: "write them again, or check them; later flushes are good again" },
  );
}

function described({ command, offset, length }: RequestHeader): string {
  const verb = VERBS.get(command);
  return verb === undefined ? "flush" : `${verb} ${length} bytes at offset ${offset}`;
}
