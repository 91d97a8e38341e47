/**
 * The entry of a host Worker: opens one backend and serves it on the descriptors it is given, in a
 * reactor of its own. It talks to the isolate that started it by the messages of `protocol.ts`.
 *
 * @module
 */
import type { Backend } from "../backend/backend.ts";
import { DeadlineError, UnsupportedError, UsageError } from "../backend/errors.ts";
import { alignBackend } from "../chunk/align.ts";
import { windowOf } from "../chunk/window.ts";
import { NbdSession } from "../nbd/session.ts";
import { parseAddress } from "../net/address.ts";
import { DescriptorChannel } from "../net/descriptor_channel.ts";
import type { Reactor } from "../net/reactor.ts";
import { SlotPool } from "../net/slot_pool.ts";
import { FuseServer } from "../fuse/server.ts";
import {
  type UserfaultClientEvent,
  type UserfaultClientOptions,
  UserfaultListener,
} from "../userfault/listener.ts";
import { HostedMemory } from "./memory.ts";
import { Listener, type Offer } from "./listener.ts";
import { openPortable } from "./open_backend.ts";
import { Outward } from "./outward.ts";
import type {
  BackendFacts,
  ExportOptions,
  FuseOptions,
  HostAnswer,
  HostMessage,
  WorkerCommand,
} from "./protocol.ts";
import { ManagedBackend } from "./managed_backend.ts";
import { MigratingBackend } from "./migrating_backend.ts";
import type { SeederStage } from "../migration/seeder_core.ts";
import type { LeecherCore } from "../migration/leecher_core.ts";
import type { Controller } from "../rpc/export.ts";
import { ProgramRequests } from "./program_requests.ts";
import { instanceId, regionId } from "./region_id.ts";
import { packError } from "./remote_error.ts";
import { RunningReactor } from "./running_reactor.ts";
import type { PortableSource } from "./source.ts";

/** The part of a dedicated Worker's global scope that is used here. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<WorkerCommand>) => void) | null;
  postMessage(message: HostMessage): void;
  close(): void;
}

const scope = self as unknown as WorkerScope;

/** How long the backend may take for what the kernel asked it before the end. */
const SHUTDOWN_MS = 5000;

/** The kernel's end of an NBD device. */
interface KernelConnection {
  channel: DescriptorChannel;
  over: Promise<void>;
}

/** By what clients that reconnect know a region again. */
type Identity = Offer["identity"];

function identify(source: PortableSource, { version }: Backend): Identity {
  return { region: regionId(source, version), instance: instanceId(source) };
}

/** The backend of this Worker and everything that serves it. */
class HostWorker {
  readonly #backend: Backend;
  readonly #identity: Identity;
  readonly #reactor: Reactor;
  readonly #pool = new SlotPool();
  readonly #listeners: Listener[] = [];
  /** Clients that are dialled, by the numbers that they were given. */
  readonly #outwards = new Map<number, Outward>();
  /** What is offered beside the backend. */
  readonly #others: Offer[] = [];
  /** Sessions with the kernel, and what ends them. */
  readonly #sessions = new Map<NbdSession, KernelConnection>();
  readonly #fuse = new Set<FuseServer>();
  readonly #memories: HostedMemory;
  readonly #userfaults: UserfaultListener[] = [];
  /** The program whose region is seeded. */
  #program: ProgramRequests | undefined;

  /** Serves `backend`, which was opened from `source`, in a reactor that runs already. */
  constructor(backend: Backend, source: PortableSource, reactor: Reactor) {
    this.#backend = backend;
    this.#identity = identify(source, backend);
    this.#reactor = reactor;
    this.#memories = new HostedMemory(reactor, this.#pool, (fd, error) => {
      const packed = error === undefined ? undefined : packError(error);
      scope.postMessage({ event: "detached", fd, error: packed });
    });
    // Every protocol tells the reactor of the calls that it waits for.
    reactor.blocking = backend.restsBetweenCalls === true;
    if (backend instanceof ManagedBackend) reactor.atRest = () => this.#isAtRest(backend);
    if (backend instanceof MigratingBackend) {
      // Offers end by timers.
      reactor.blocking = false;
      reactor.atRest = () => this.#isAtRest(backend);
    }
  }

  get facts(): BackendFacts {
    const { size, blockSize, durable, readOnly } = this.#backend;
    const parts = this.#parts;
    return { size, blockSize, durable, readOnly, shared: this.#backend.share?.(), parts };
  }

  get #parts(): BackendFacts["parts"] {
    return this.#backend instanceof MigratingBackend ? this.#backend.parts : undefined;
  }

  /** A part of a group; the whole backend unless told. */
  #shown(name: string | undefined): Backend {
    if (name === undefined) return this.#backend;
    const part = this.#parts?.find((part) => part.name === name);
    if (part !== undefined) return windowOf(this.#backend, part);
    throw new UsageError(`Cannot find a part of the name ${name}`);
  }

  async perform(command: Exclude<WorkerCommand, { command: "open" }>): Promise<HostAnswer | void> {
    this.#reactor.messageArrived();
    switch (command.command) {
      case "listen":
        this.#listeners.push(
          new Listener(this.#reactor, this.#pool, {
            ...command.options,
            fd: command.fd,
            protocol: command.protocol,
            offers: [this.#offer(command.options), ...this.#others],
          }),
        );
        return;
      case "export":
        return await this.#while(this.#export(command.source, command.options));
      case "dial":
        return this.#dial(command);
      case "hang-up":
        return await this.#while(this.#hangUp(command.outward));
      case "listen-userfault":
        return this.#listenUserfault(command.fd, command.options);
      case "nbd":
        return this.#serveNbd(command.fd, command.flags, this.#shown(command.part));
      case "fuse":
        return this.#serveFuse(command.fd, command, this.#shown(command.part));
      case "userfault":
        return this.#memories.serve(command.fd, command.options, this.#shown(command.part));
      case "push":
        return await this.#while(this.#memories.push(command.fd));
      case "complete":
        return await this.#while(this.#memories.complete(command.fd));
      case "statistics":
        return { statistics: this.#memories.statistics(command.fd) };
      case "release":
        return { statistics: this.#memories.release(command.fd) };
      case "sync":
        return await this.#while(this.#managed.sync());
      case "fill":
        return this.#managed.fill(command.options);
      case "filled":
        return await this.#while(this.#managed.filled());
      case "pause":
        return this.#managed.setPaused(command.paused);
      case "progress":
        return { progress: this.#managed.progress };
      case "seed":
        return { stage: this.#seed(command.flushes) };
      case "take-back":
        return await this.#while(this.#migrating.seeder!.takeBack());
      case "did":
        return this.#program?.did(command.ask, command.error);
      case "finalize":
        return await this.#while(this.#leecher.finalize(command.options));
      case "copied":
        return await this.#while(this.#leecher.copied());
      case "completed":
        return await this.#while(this.#leecher.complete());
      case "follow":
        return await this.#while(this.#leecher.follow(command.interval));
      case "promote":
        return { missing: await this.#leecher.promote() };
      case "abandon":
        return await this.#while(this.#migrating.abandon());
      case "migration":
        return { migration: this.#leecher.metrics };
      case "flush":
        return await this.#while(this.#flush());
      case "close":
        return await this.#close(command.flushMs);
    }
  }

  get #managed(): ManagedBackend {
    if (this.#backend instanceof ManagedBackend) return this.#backend;
    throw new UsageError("Cannot ask for the cache of a region that has none");
  }

  get #migrating(): MigratingBackend {
    if (this.#backend instanceof MigratingBackend) return this.#backend;
    throw new UsageError("Cannot ask a region to move that was not opened for that");
  }

  get #leecher(): LeecherCore {
    const { leecher } = this.#migrating;
    if (leecher !== undefined) return leecher;
    throw new UsageError("Cannot take over a region that comes from nowhere");
  }

  #seed(flushes: boolean): SeederStage {
    this.#program = new ProgramRequests(
      (message) => scope.postMessage(message),
      { flushes, pushMemory: () => this.#memories.pushAll() },
      this.#migrating.handover,
    );
    return this.#migrating.seed(this.#program).stage;
  }

  #isAtRest(backend: ManagedBackend | MigratingBackend): boolean {
    return backend.atRest &&
      this.#others.every(({ backend }) => backend.restsBetweenCalls === true);
  }

  #offer({ name, description, readOnly }: ExportOptions): Offer {
    const backend = this.#backend, identity = this.#identity;
    if (!(backend instanceof MigratingBackend)) {
      return { name, description, readOnly, backend, identity };
    }
    // Whoever takes it over writes to its own copy.
    const control: Controller = async (message, gone) => {
      if (backend.seeder !== undefined) return await backend.seeder.control(message, gone);
      throw new UnsupportedError("Cannot take over a region that is not seeded");
    };
    return { name, description, readOnly: true, backend, identity, control };
  }

  #dial({ outward, url, options }: Extract<WorkerCommand, { command: "dial" }>): void {
    const address = parseAddress(url);
    const { name } = address;
    const other = this.#others.find((offer) => offer.name === name);
    const offers = [other ?? this.#offer({ ...options, name, description: "" })];
    const log = (line: string) => scope.postMessage({ event: "outward", outward, line });
    this.#outwards.set(
      outward,
      new Outward(this.#reactor, this.#pool, { ...options, address, offers, log }),
    );
  }

  async #hangUp(outward: number): Promise<void> {
    const ended = this.#outwards.get(outward);
    this.#outwards.delete(outward);
    await ended?.close();
  }

  async #export(source: PortableSource, options: ExportOptions): Promise<void> {
    const backend = alignBackend(await openPortable(source, this.#reactor));
    const identity = identify(source, backend);
    this.#others.push({ ...options, backend, identity });
    this.#reactor.blocking &&= backend.restsBetweenCalls === true;
  }

  /** Flushes all backends, and throws what the first one throws that fails. */
  async #flush(): Promise<void> {
    await Promise.all(this.#backends.map(async (backend) => await backend.flush()));
  }

  get #backends(): Backend[] {
    return [this.#backend, ...this.#others.map(({ backend }) => backend)];
  }

  /** The transmission phase alone, on a socket whose other end is the kernel. */
  #serveNbd(fd: number, flags: number, backend: Backend): void {
    const channel = new DescriptorChannel(this.#reactor, this.#pool, fd);
    const session = new NbdSession(channel, { backend, flags, structured: false });
    const { promise: over, resolve } = Promise.withResolvers<void>();
    this.#sessions.set(session, { channel, over });
    channel.attach(session, () => {
      this.#sessions.delete(session);
      scope.postMessage({ event: "detached", fd });
      resolve();
    });
  }

  #listenUserfault(fd: number, options: UserfaultClientOptions): void {
    const onEvent = (client: UserfaultClientEvent) =>
      scope.postMessage({ event: "client", fd, client });
    this.#userfaults.push(
      new UserfaultListener(this.#reactor, this.#pool, this.#backend, { ...options, fd, onEvent }),
    );
  }

  #serveFuse(fd: number, { fileName, readOnly }: FuseOptions, backend: Backend): void {
    const server: FuseServer = new FuseServer(this.#reactor, fd, backend, {
      fileName,
      readOnly,
      onDetached: (error?: Error) => {
        this.#fuse.delete(server);
        const packed = error === undefined ? undefined : packError(error);
        scope.postMessage({ event: "detached", fd, error: packed });
      },
    });
    this.#fuse.add(server);
  }

  async #close(flushMs: number): Promise<void> {
    // What is queued for a peer may lie in the backend's memory: first they are done with that.
    const connections = [
      ...this.#listeners.map((listener) => listener.close()),
      ...[...this.#outwards.values()].map((outward) => outward.close()),
      ...[...this.#sessions].map(([session, connection]) => this.#end(session, connection)),
    ];
    await this.#while(Promise.all(connections));
    this.#memories.close();
    for (const listener of this.#userfaults) listener.close();
    try {
      if (flushMs > 0) await this.#while(this.#flushWithin(flushMs));
    } finally {
      const closing = this.#backends.map(async (backend) => await backend.close());
      await this.#while(Promise.all(closing));
    }
  }

  /** Ends a session with the kernel once all it asked is answered, or when its time is over. */
  async #end(session: NbdSession, { channel, over }: KernelConnection): Promise<void> {
    session.shutdown();
    const late = performance.now() + SHUTDOWN_MS;
    const deadline = this.#reactor.addDeadline(late, () => channel.close());
    await over;
    this.#reactor.cancelDeadline(deadline);
  }

  #flushWithin(milliseconds: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const late = new DeadlineError(`Cannot flush the backend within ${milliseconds / 1000} s`, {
      hint: "what clients did not flush themselves may be lost",
    });
    const deadline = this.#reactor.addDeadline(
      performance.now() + milliseconds,
      () => reject(late),
    );
    this.#flush().then(resolve, reject)
      .finally(() => this.#reactor.cancelDeadline(deadline));
    return promise;
  }

  /** Lets the event loop run until a promise settles. */
  async #while(promise: void | Promise<unknown>): Promise<void> {
    if (promise === undefined) return;
    this.#reactor.beginAsync();
    try {
      await promise;
    } finally {
      this.#reactor.endAsync();
    }
  }
}

function tellLocal(from: number, to: number): void {
  scope.postMessage({ event: "local", from, to });
}

let running: RunningReactor | undefined;
let host: HostWorker | undefined;

async function obey(command: WorkerCommand): Promise<HostMessage> {
  const { id } = command;
  try {
    if (command.command !== "open") {
      return { id, ...await host!.perform(command) };
    }
    running = new RunningReactor(command.wakeFd);
    const backend = alignBackend(await openPortable(command.source, running.reactor, tellLocal));
    host = new HostWorker(backend, command.source, running.reactor);
    return { id, facts: host.facts };
  } catch (error) {
    return { id, error: packError(error) };
  }
}

scope.onmessage = async ({ data: command }) => {
  const answer = await obey(command);
  const last = command.command === "close" || host === undefined;
  if (last) await running!.stop();
  scope.postMessage(answer);
  if (last) scope.close();
};
