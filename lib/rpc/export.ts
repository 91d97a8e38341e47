/**
 * A region as a server of the native wire offers it.
 *
 * @module
 */
import type { Backend } from "../backend/backend.ts";

/** What a client may connect to. */
export interface WireExport {
  /** The region. */
  backend: Backend;
  /** Refuse writes, also where the backend takes them. */
  readOnly: boolean;
  /** 16 bytes that stay the same as long as this is the same region. */
  region: Uint8Array;
  /** 16 bytes that change whenever writes that were not flushed may have been lost. */
  instance: Uint8Array;
}
