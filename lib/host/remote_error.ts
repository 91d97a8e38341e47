/**
 * Errors as they cross between isolates: the kind, the text and the errno name survive.
 *
 * @module
 */
import { errorCode, TelemapError, UsageError } from "../backend/errors.ts";

/** An error in a form that a message can carry. */
export interface PortableError {
  kind: "usage" | "range" | "other";
  name: string;
  code: string;
  message: string;
}

/** Packs an error for a message. */
export function packError(error: unknown): PortableError {
  const kind = error instanceof UsageError
    ? "usage"
    : error instanceof RangeError
    ? "range"
    : "other";
  const name = error instanceof Error ? error.name : "Error";
  const message = error instanceof Error ? error.message : String(error);
  return { kind, name, code: errorCode(error), message };
}

/** The error again, as the kind it was where callers tell it apart. */
export function unpackError(packed: PortableError): Error {
  if (packed.kind === "usage") return new UsageError(packed.message);
  if (packed.kind === "range") return new RangeError(packed.message);
  const error = new TelemapError(packed.code, packed.message);
  error.name = packed.name;
  return error;
}
