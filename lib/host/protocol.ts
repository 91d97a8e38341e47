/**
 * The messages between an isolate and the Workers in which it hosts backends. Every message to the
 * Worker is followed by a signal of its wake descriptor, as the Worker may be waiting in a system
 * call.
 *
 * @module
 */
import type { UserfaultClientEvent, UserfaultClientOptions } from "../userfault/listener.ts";
import type { UserfaultServerOptions } from "../userfault/server.ts";
import type { GroupPart } from "../migration/group_head.ts";
import type { FinalizeOptions, Missing } from "../migration/leecher_core.ts";
import type { MigrationMetrics } from "../migration/migration_metrics.ts";
import type { SeederStage } from "../migration/seeder_core.ts";
import type { CacheProgress, FillOptions } from "./managed_backend.ts";
import type { MemoryStatistics } from "./memory_statistics.ts";
import type { TrackingMethod } from "../tracking/write_tracker.ts";
import type { SharedBackend } from "../backend/backend.ts";
import type { PortableError } from "./remote_error.ts";
import type { PortableSource } from "./source.ts";

/** What is known of a backend once it is open. */
export interface BackendFacts {
  size: number;
  blockSize: number;
  durable: boolean;
  readOnly: boolean;
  /** How another Worker opens the same bytes; missing where it cannot, or has to do it by URL. */
  shared?: SharedBackend | undefined;
  /** The parts of a group. */
  parts?: readonly GroupPart[] | undefined;
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

/** How a client is dialled and served, and how the host's backend is offered to it. */
export interface DialOptions extends Pick<ExportOptions, "readOnly"> {
  /** How long connecting may take, and then each hello, in ms. */
  handshakeMs: number;
  /** Connections that are to wait for the client's use. */
  waiting: number;
  /** What is shown to the client, and what it must show. */
  token?: string | undefined;
}

/** How a region is shown as a file. */
export interface FuseOptions {
  /** Name of the file. */
  fileName: string;
  /** Whether it may only be read. */
  readOnly: boolean;
}

/** How memory of this process is paged in, and its writes are noticed. */
export type MemoryOptions =
  & Pick<UserfaultServerOptions, "regions" | "faultAround" | "prefetch" | "onLoss" | "lossMs">
  & {
    /** How writes are noticed; missing where there are none. */
    tracking: TrackingMethod | undefined;
  };

/** To the Worker. `id` comes back in the answer. */
export type HostCommand =
  | { id: number; command: "open"; source: PortableSource }
  /** Opens one more backend, which is offered by whoever listens afterwards. */
  | { id: number; command: "export"; source: PortableSource; options: ExportOptions }
  | { id: number; command: "listen"; fd: number; protocol: ListenProtocol; options: ListenOptions }
  /** Dials a client and serves it; `outward` names this in what follows. */
  | { id: number; command: "dial"; outward: number; url: string; options: DialOptions }
  /** Dials it no more, and drops its connections. */
  | { id: number; command: "hang-up"; outward: number }
  /** Pages in the memory of the processes that connect to a listening socket. */
  | { id: number; command: "listen-userfault"; fd: number; options: UserfaultClientOptions }
  /** `part`, here and below: the name of one of a group that is meant alone. */
  | { id: number; command: "nbd"; fd: number; flags: number; part?: string | undefined }
  | ({ id: number; command: "fuse"; fd: number; part?: string | undefined } & FuseOptions)
  /** Pages memory of this process in; the descriptor stays with who sent it. */
  | {
    id: number;
    command: "userfault";
    fd: number;
    options: MemoryOptions;
    part?: string | undefined;
  }
  /** Writes the dirty pages of such memory back. */
  | { id: number; command: "push"; fd: number }
  /** Pages everything in. */
  | { id: number; command: "complete"; fd: number }
  /** Pages in no more; answers whether some thread waits for a page. */
  | { id: number; command: "release"; fd: number }
  | { id: number; command: "statistics"; fd: number }
  /** Of a managed backend: brings what is dirty to the remote. */
  | { id: number; command: "sync" }
  | { id: number; command: "progress" }
  /** Of a managed backend: fills its cache in the background. */
  | { id: number; command: "fill"; options: FillOptions }
  /** Answers when the cache is full. */
  | { id: number; command: "filled" }
  | { id: number; command: "pause"; paused: boolean }
  /** Lets others take a migrating backend over. `flushes`: whether the program has anything to flush. */
  | { id: number; command: "seed"; flushes: boolean }
  /** Takes back what a seeder has offered. */
  | { id: number; command: "take-back" }
  /** What the program did that a seeder asked for. */
  | { id: number; command: "did"; ask: number; error?: PortableError | undefined }
  /** Takes a region over that is leeched. */
  | { id: number; command: "finalize"; options: FinalizeOptions }
  /** Answers when a region was copied once; or, once it is taken over, when the source is let go. */
  | { id: number; command: "copied" | "completed" }
  /** Goes on with a copy, one round every so many ms; answers when it is followed no more. */
  | { id: number; command: "follow"; interval: number }
  /** Makes a copy the region without the word of its source. */
  | { id: number; command: "promote" }
  /** Lets go of a leeched region that will not be taken over. */
  | { id: number; command: "abandon" }
  | { id: number; command: "migration" }
  | { id: number; command: "flush" }
  /** `flushMs`: how long to try to flush what clients wrote; 0 for not at all. */
  | { id: number; command: "close"; flushMs: number };

type OpenCommand = Extract<HostCommand, { command: "open" }>;

/** As the Worker itself gets them: the first one with the descriptor that is signalled for others. */
export type WorkerCommand = Exclude<HostCommand, OpenCommand> | OpenCommand & { wakeFd: number };

/** What an answer of the Worker may hold. */
export interface HostAnswer {
  facts?: BackendFacts;
  statistics?: MemoryStatistics;
  progress?: CacheProgress;
  migration?: MigrationMetrics;
  stage?: SeederStage;
  missing?: Missing;
}

/** What a seeder asks of the program whose region it has. */
export type ProgramRequest = "suspend" | "resume" | "flush" | "throttle";

/** From the Worker. */
export type HostMessage =
  | ({ id: number } & HostAnswer)
  | { id: number; error: PortableError }
  /** Bytes `[from, to)` of a managed backend came to its cache. */
  | { event: "local"; from: number; to: number }
  /** A seeder wants the program to do something, and waits for the command `did`. */
  | {
    event: "ask";
    ask: number;
    what: ProgramRequest;
    /** Of `throttle`: bytes a second; missing for no limit. */
    rate?: number | undefined;
  }
  /** Where the handover of a seeded region is. */
  | { event: "seeder"; stage: SeederStage }
  /** A line for people about a client that is dialled. */
  | { event: "outward"; outward: number; line: string }
  | { event: "detached"; fd: number; error?: PortableError | undefined }
  /** What happened to a client of the listening socket `fd`. */
  | { event: "client"; fd: number; client: UserfaultClientEvent };
