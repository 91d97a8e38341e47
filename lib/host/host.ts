/**
 * Runs a backend in a Worker of its own, in this process or another one, and has it served there on
 * descriptors: network listeners, the kernel's NBD client, FUSE. What touches the region here never
 * waits for itself.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import type { UserfaultClientEvent, UserfaultClientOptions } from "../userfault/listener.ts";
import type { FinalizeOptions, Missing } from "../migration/leecher_core.ts";
import type { MigrationMetrics } from "../migration/migration_metrics.ts";
import type { SeederStage } from "../migration/seeder_core.ts";
import type { HostLink } from "./host_link.ts";
import type { LeechOptions, SeedOptions } from "./migrating_backend.ts";
import { movable } from "./movable.ts";
import { packError } from "./remote_error.ts";
import { ProcessLink } from "./process_link.ts";
import type {
  BackendFacts,
  DialOptions,
  ExportOptions,
  FuseOptions,
  ListenOptions,
  ListenProtocol,
  MemoryOptions,
  ProgramRequest,
} from "./protocol.ts";
import type { CacheProgress, FillOptions, ManagedOptions } from "./managed_backend.ts";
import type { MemoryStatistics } from "./memory_statistics.ts";
import {
  type BackendSource,
  type DialledSource,
  type GroupSource,
  type HostSource,
  portableRemote,
  type PortableSource,
} from "./source.ts";
import { WorkerLink } from "./worker_link.ts";

/** How {@linkcode BackendHost.start} opens the backend. */
export interface HostOptions {
  /** What a server of the native wire wants to see. */
  token?: string | undefined;
  /**
   * Whether the Worker runs in a process of its own. It must where this process maps what the host
   * serves as a device (see `process_link.ts`); not unless told.
   */
  apart?: boolean | undefined;
}

/** Memory of this process that a {@linkcode BackendHost} pages in. */
export interface ServedMemory {
  /** Answers when all that was written before is durable in the backend. */
  push(): Promise<void>;
  /** Answers when every page is in place, those that nobody has touched too. */
  complete(): Promise<void>;
  /** What was counted so far. */
  statistics(): Promise<MemoryStatistics>;
  /** Pages in no more: from now on a touch of a missing page waits for ever. */
  release(): Promise<MemoryStatistics>;
}

/** What the program of a seeded region does when it is asked; `flush` is missing where it has nothing to. */
export type SeededProgramActions =
  & Record<Exclude<ProgramRequest, "flush">, (rate?: number) => Promise<void>>
  & { flush: (() => Promise<void>) | undefined };

/** One backend in a Worker. */
export class BackendHost implements AsyncDisposable {
  /** What is known of the backend. */
  readonly facts: BackendFacts;
  /** Settles when the Worker is gone; with the error, if it was not closed but failed. */
  readonly ended: Promise<Error | undefined>;
  readonly #link: HostLink;
  readonly #source: PortableSource;
  readonly #detached = new Map<number, (error: Error | undefined) => void>();
  readonly #clients = new Map<number, (event: UserfaultClientEvent) => void>();
  readonly #outwards = new Map<number, (line: string) => void>();
  #nextOutward = 1;
  #closing: Promise<void> | undefined;

  /**
   * Opens the source in a new Worker; a Backend object stays in this isolate and is called from
   * there. Throws what opening throws.
   */
  static async start(source: HostSource, options: HostOptions = {}): Promise<BackendHost> {
    const link = await newLink(options);
    return await BackendHost.#open(link, ...movable(source, options.token, link));
  }

  /**
   * The same behind a cache on this host, named by a `file:`, `dir:` or `memory:` URL. `onLocal` is
   * told of bytes `[from, to)` that came to the cache. Throws what `openManaged` does, too.
   */
  static async startManaged(
    remote: HostSource,
    cache: string,
    options: HostOptions & ManagedOptions,
    onLocal: (from: number, to: number) => void = () => {},
  ): Promise<BackendHost> {
    const { token, apart, ...cached } = options;
    const link = await newLink({ apart });
    link.onLocal = onLocal;
    const [there, transfer] = movable(remote, token, link);
    const source: PortableSource = { kind: "managed", remote: there, cache, options: cached };
    return await BackendHost.#open(link, source, transfer);
  }

  /**
   * Opens a region, or a group, that can be given to another host, with chunks of so many bytes; see
   * {@linkcode BackendHost.seed}. Throws what opening throws.
   */
  static async startSeeded(
    source: BackendSource | GroupSource,
    options: HostOptions & SeedOptions,
  ): Promise<BackendHost> {
    const { token, apart, ...seed } = options;
    const link = await newLink({ apart });
    const [there, transfer] = movable(source, token, link);
    const seeded: PortableSource = { kind: "seeded", source: there, options: seed };
    return await BackendHost.#open(link, seeded, transfer);
  }

  /**
   * Begins to bring a region here from a seeder, into a cache that is named by a `file:`, `dir:` or
   * `memory:` URL. Until {@linkcode BackendHost.finalize}, whoever uses it waits. Throws what opening
   * throws.
   */
  static async startLeeched(
    seeder: string | URL | DialledSource,
    cache: string,
    options: HostOptions & LeechOptions,
  ): Promise<BackendHost> {
    const { token, apart, ...leech } = options;
    const remote = portableRemote(seeder, token);
    const source: PortableSource = { kind: "leeched", remote, cache, options: leech };
    return await BackendHost.#open(await newLink({ apart }), source, []);
  }

  static async #open(
    link: HostLink,
    source: PortableSource,
    transfer: Transferable[],
  ): Promise<BackendHost> {
    try {
      const { facts } = await link.call({ command: "open", source }, transfer);
      return new BackendHost(link, source, facts!);
    } catch (error) {
      await link.terminate();
      throw error;
    }
  }

  private constructor(link: HostLink, source: PortableSource, facts: BackendFacts) {
    this.#link = link;
    this.#source = source;
    this.facts = facts;
    link.onDetached = (fd, error) => {
      this.#detached.get(fd)?.(error);
      this.#detached.delete(fd);
    };
    link.onClient = (fd, event) => this.#clients.get(fd)?.(event);
    link.onOutward = (outward, line) => this.#outwards.get(outward)?.(line);
    const ended = Promise.withResolvers<Error | undefined>();
    this.ended = ended.promise;
    link.onEnd = (error) => {
      ended.resolve(this.#closing === undefined ? error : undefined);
      for (const detached of this.#detached.values()) detached(error);
      this.#detached.clear();
    };
  }

  /**
   * Opens the same bytes in one more Worker, to be closed before this one.
   *
   * @throws {UsageError} for a module or a Backend object that does not share its bytes.
   */
  async startAnother(): Promise<BackendHost> {
    const { shared } = this.facts;
    const source: PortableSource = shared === undefined ? this.#source : { kind: "shared", shared };
    if (source.kind === "url" || source.kind === "shared") {
      return await BackendHost.#open(new WorkerLink(), source, []);
    }
    throw new UsageError("Cannot open this backend in several Workers", {
      hint: "give a URL, or a backend that has share()",
    });
  }

  /** Opens one more backend in the Worker, for whoever connects to what listens afterwards. */
  async export(source: HostSource, options: ExportOptions & HostOptions): Promise<void> {
    const { token, ...offer } = options;
    const [there, transfer] = movable(source, token, this.#link);
    await this.#link.call({ command: "export", source: there, options: offer }, transfer);
  }

  /** Serves connections of a listening socket, which belongs to the host from now on. */
  async listen(fd: number, protocol: ListenProtocol, options: ListenOptions): Promise<void> {
    await this.#link.call({ command: "listen", fd, protocol, options });
  }

  /**
   * Dials a client and serves it, by the native wire, until the answer is called. `onLine` takes lines
   * for people.
   */
  async dial(
    url: string,
    options: DialOptions,
    onLine: (line: string) => void,
  ): Promise<() => Promise<void>> {
    const outward = this.#nextOutward++;
    this.#outwards.set(outward, onLine);
    await this.#link.call({ command: "dial", outward, url, options });
    return async () => {
      this.#outwards.delete(outward);
      if (!this.#link.ended) await this.#link.call({ command: "hang-up", outward });
    };
  }

  /**
   * Speaks NBD's transmission phase on a socket, which belongs to the host from now on.
   * `onDetached` is called when the other end is gone. Here and below, `part` names what of a group
   * is to be served; all of the region unless told.
   */
  async serveNbd(
    fd: number,
    flags: number,
    onDetached: () => void,
    part?: string,
  ): Promise<void> {
    this.#detached.set(fd, onDetached);
    await this.#link.call({ command: "nbd", fd, flags, part });
  }

  /**
   * Serves the backend as a file on a descriptor of /dev/fuse, which belongs to the host from now
   * on. `onDetached` is called when it is unmounted.
   */
  async serveFuse(
    fd: number,
    options: FuseOptions,
    onDetached: (error: Error | undefined) => void,
    part?: string,
  ): Promise<void> {
    this.#detached.set(fd, onDetached);
    await this.#link.call({ command: "fuse", fd, ...options, part });
  }

  /**
   * Pages memory of this process in from the backend, by a userfaultfd that it is registered with.
   * The descriptor stays the caller's, who closes it when the memory is unmapped.
   * `onDetached` is called when nothing is paged in any more, with the error if one ended it.
   */
  async serveMemory(
    fd: number,
    options: MemoryOptions,
    onDetached: (error: Error | undefined) => void,
    part?: string,
  ): Promise<ServedMemory> {
    this.#detached.set(fd, onDetached);
    await this.#link.call({ command: "userfault", fd, options, part });
    const ask = async (command: "statistics" | "release") =>
      (await this.#link.call({ command, fd })).statistics!;
    return {
      push: async () => void await this.#link.call({ command: "push", fd }),
      complete: async () => void await this.#link.call({ command: "complete", fd }),
      statistics: () => ask("statistics"),
      release: () => ask("release"),
    };
  }

  /**
   * Pages in the memory of the processes that connect to a listening Unix socket, which belongs to
   * the host from now on, and tells what happens to them.
   */
  async listenUserfault(
    fd: number,
    options: UserfaultClientOptions,
    onClient: (event: UserfaultClientEvent) => void,
  ): Promise<void> {
    this.#clients.set(fd, onClient);
    await this.#link.call({ command: "listen-userfault", fd, options });
  }

  /** Of a managed backend: answers when all that was written before is at the remote, flushed. */
  async sync(): Promise<void> {
    await this.#link.call({ command: "sync" });
  }

  /** Of a managed backend: begins to fill its cache in the background. */
  async fill(options: FillOptions): Promise<void> {
    await this.#link.call({ command: "fill", options });
  }

  /** Of a managed backend: answers when its cache is full. */
  async filled(): Promise<void> {
    await this.#link.call({ command: "filled" });
  }

  /** Of a managed backend: holds the filling of its cache up, or lets it go on. */
  async setPaused(paused: boolean): Promise<void> {
    await this.#link.call({ command: "pause", paused });
  }

  /** Of a managed backend: how far its cache is. */
  async progress(): Promise<CacheProgress> {
    return (await this.#link.call({ command: "progress" })).progress!;
  }

  /**
   * Of a seeded or leeched backend: lets others take it over; the program does what they need.
   * Answers where the handover is.
   */
  async seed(
    program: SeededProgramActions,
    onStage: (stage: SeederStage) => void,
  ): Promise<SeederStage> {
    this.#link.onSeeder = onStage;
    this.#link.onAsk = async (ask, what, rate) => {
      const error = await program[what]?.(rate).then(() => undefined, packError);
      if (!this.#link.ended) await this.#link.call({ command: "did", ask, error });
    };
    const flushes = program.flush !== undefined;
    return (await this.#link.call({ command: "seed", flushes })).stage!;
  }

  /** Takes back what is offered to somebody. */
  async takeBack(): Promise<void> {
    await this.#link.call({ command: "take-back" });
  }

  /** Of a leeched backend: answers when all of it was copied once. */
  async copied(): Promise<void> {
    await this.#link.call({ command: "copied" });
  }

  /** Of a leeched backend: takes it over. */
  async finalize(options: FinalizeOptions): Promise<void> {
    await this.#link.call({ command: "finalize", options });
  }

  /** Of a leeched backend: goes on with a round every so many ms, until it is followed no more. */
  async follow(interval: number): Promise<void> {
    await this.#link.call({ command: "follow", interval });
  }

  /** Of a leeched backend: makes it the region without the word of its source. */
  async promote(): Promise<Missing> {
    return (await this.#link.call({ command: "promote" })).missing!;
  }

  /** Of a leeched backend that is taken over: answers when its source is needed no more. */
  async completed(): Promise<void> {
    await this.#link.call({ command: "completed" });
  }

  /** Of a leeched backend: lets go of it, as it will not be taken over. */
  async abandon(): Promise<void> {
    await this.#link.call({ command: "abandon" });
  }

  /** Of a leeched backend: how far it is. */
  async migration(): Promise<MigrationMetrics> {
    return (await this.#link.call({ command: "migration" })).migration!;
  }

  /** Flushes the backend. */
  async flush(): Promise<void> {
    await this.#link.call({ command: "flush" });
  }

  /**
   * Answers what is in hand, closes connections and backend, and ends the Worker. Flushes before,
   * for as long as `flushMs` says. Throws what the flush throws, after all is closed.
   */
  close({ flushMs = 0 } = {}): Promise<void> {
    return this.#closing ??= this.#close(flushMs);
  }

  /** As {@linkcode close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(flushMs: number): Promise<void> {
    if (this.#link.ended) return;
    try {
      await this.#link.call({ command: "close", flushMs });
    } finally {
      await this.#link.terminate();
    }
  }
}

async function newLink({ apart = false }: Pick<HostOptions, "apart">): Promise<HostLink> {
  return apart ? await ProcessLink.start() : new WorkerLink();
}
