/**
 * A region as an NBD server offers it: its name, and what clients may do with it.
 *
 * @module
 */
import type { Backend } from "../backend/backend.ts";
import { FLAG, LIMIT } from "./constants.ts";

/** One export of a server. */
export interface NbdExport {
  /** UTF-8, at most 4096 bytes; "" is the default export. */
  readonly name: string;
  /** Shown by LIST and INFO. */
  readonly description: string;
  /** Refuse writes even where the backend takes them. */
  readonly readOnly: boolean;
  /** The bytes; any alignment is served. */
  readonly backend: Backend;
}

/** What clients are told about block sizes, in bytes. */
export const BLOCK_SIZES = { minimum: 1, preferred: 4096, maximum: LIMIT.PAYLOAD } as const;

/**
 * Transmission flags of an export. Every connection sees one backend without a cache between, so
 * that a FLUSH on one covers the writes of all: CAN_MULTI_CONN.
 */
export function transmissionFlags(offered: NbdExport, structured: boolean): number {
  const { backend } = offered;
  let flags = FLAG.HAS_FLAGS | FLAG.SEND_FLUSH | FLAG.SEND_FUA | FLAG.CAN_MULTI_CONN |
    FLAG.SEND_CACHE;
  if (structured) flags |= FLAG.SEND_DF;
  if (offered.readOnly || backend.readOnly) return flags | FLAG.READ_ONLY;
  flags |= FLAG.SEND_TRIM | FLAG.SEND_WRITE_ZEROES | FLAG.SEND_FAST_ZERO;
  return flags;
}
