/**
 * A region as a server of the native wire offers it.
 *
 * @module
 */
import type { Backend } from "../backend/backend.ts";

/**
 * Answers the messages that clients send beside reads and writes (CONTROL). The message is a copy
 * that may be kept. An answer has at most as many bytes as a payload may have, and may take its
 * time; what is thrown is refused by its errno name and text. The same message may come again, as
 * clients repeat what they had no answer to when a connection was lost. `gone` is aborted once the
 * connection is known to be lost.
 */
export type Controller = (
  message: Uint8Array<ArrayBuffer>,
  gone: AbortSignal,
) => Promise<Uint8Array>;

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
  /** Takes messages; there are none unless told. */
  control?: Controller | undefined;
}
