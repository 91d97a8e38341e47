/**
 * The messages between an isolate and the Workers in which it hosts backends. Every message to the
 * Worker is followed by a signal of its wake descriptor, as the Worker may be waiting in a system
 * call.
 *
 * @module
 */
import type { PortableError } from "./remote_error.ts";
import type { PortableSource } from "./source.ts";

/** What is known of a backend once it is open. */
export interface BackendFacts {
  size: number;
  blockSize: number;
  durable: boolean;
  readOnly: boolean;
}

/** The protocol that is spoken on a listening socket. */
export type ListenProtocol = "nbd" | "telemap";

/** How a region is offered to clients. */
export interface ExportOptions {
  /** Name of the export. */
  name: string;
  /** Text for people that NBD shows beside the name. */
  description: string;
  /** Refuse writes. */
  readOnly: boolean;
}

/** How connections of a listening socket are treated, and how the host's backend is offered. */
export interface ListenOptions extends ExportOptions {
  /** How long a handshake may take, in ms. */
  handshakeMs: number;
  /** Connections at a time. */
  maxConnections: number;
  /** What clients of the native wire must show. */
  token?: string | undefined;
}

/** To the Worker. `id` comes back in the answer. */
export type HostCommand =
  | { id: number; command: "open"; source: PortableSource; wakeFd: number }
  /** Opens one more backend, which is offered by whoever listens afterwards. */
  | { id: number; command: "export"; source: PortableSource; options: ExportOptions }
  | { id: number; command: "listen"; fd: number; protocol: ListenProtocol; options: ListenOptions }
  | { id: number; command: "nbd"; fd: number; flags: number }
  | { id: number; command: "fuse"; fd: number; fileName: string; readOnly: boolean }
  | { id: number; command: "flush" }
  /** `flushMs`: how long to try to flush what clients wrote; 0 for not at all. */
  | { id: number; command: "close"; flushMs: number };

/** From the Worker. */
export type HostMessage =
  | { id: number; facts?: BackendFacts | undefined }
  | { id: number; error: PortableError }
  | { event: "detached"; fd: number; error?: PortableError | undefined };
