/**
 * Errors as they cross between isolates: the kind, the text and the errno name survive.
 *
 * @module
 */
import {
  ChangedError,
  ClosedError,
  ConnectionError,
  DeadlineError,
  errorCode,
  FencedError,
  IntegrityError,
  ProtocolError,
  ReadOnlyError,
  TelemapError,
  UnsupportedError,
  UsageError,
} from "../backend/errors.ts";

/** An error in a form that a message can carry. */
export interface PortableError {
  /** Its class, where that is one of those that callers tell apart. */
  kind: ErrorKind | "range" | "other";
  /** As `Error.name`. */
  name: string;
  /** An errno name. */
  code: string;
  /** Text for people. */
  message: string;
}

type ErrorKind = keyof typeof KINDS;

const KINDS = {
  usage: UsageError,
  "read-only": ReadOnlyError,
  closed: ClosedError,
  deadline: DeadlineError,
  fenced: FencedError,
  connection: ConnectionError,
  protocol: ProtocolError,
  integrity: IntegrityError,
  changed: ChangedError,
  unsupported: UnsupportedError,
} as const;

/** Packs an error for a message. */
export function packError(error: unknown): PortableError {
  const name = error instanceof Error ? error.name : "Error";
  const message = error instanceof Error ? error.message : String(error);
  return { kind: kindOf(error), name, code: errorCode(error), message };
}

/** The error again, as the kind it was where callers tell it apart. */
export function unpackError(packed: PortableError): Error {
  if (packed.kind === "range") return new RangeError(packed.message);
  if (packed.kind !== "other") return new KINDS[packed.kind](packed.message);
  const error = new TelemapError(packed.code, packed.message);
  error.name = packed.name;
  return error;
}

function kindOf(error: unknown): PortableError["kind"] {
  if (error instanceof RangeError) return "range";
  const found = Object.entries(KINDS).find(([, kind]) => error instanceof kind);
  return (found?.[0] as ErrorKind | undefined) ?? "other";
}
