/**
 * A FUSE mount for device tests: the device in this isolate, its server in a Worker.
 *
 * @module
 */
import { EventFd } from "../../ffi/epoll.ts";
import { attachFuse, type AttachFuseOptions, type FuseDevice } from "../../lib/device/fuse.ts";
import { attachLoop, type LoopDevice } from "../../lib/device/loop.ts";
import { makeCounters } from "./counted_backend.ts";
import type { ServedBackend, WorkerCommand, WorkerEvent } from "./fuse_worker.ts";

/** What is served and how it is attached. */
export interface ServedOptions extends ServedBackend {
  readOnly?: boolean;
  at?: string;
}

/** A Worker that serves one backend, until it is disposed of. */
export class FileServer implements Disposable {
  /** What happened in the backend: see `COUNT`. */
  readonly counters = makeCounters();
  readonly #worker = new Worker(new URL("./fuse_worker.ts", import.meta.url), { type: "module" });
  readonly #wake = new EventFd();
  readonly #backend: ServedBackend;

  constructor(backend: ServedBackend) {
    this.#backend = backend;
  }

  /** For `AttachFuseOptions`. */
  readonly serve: AttachFuseOptions["serve"] = async (fd, file, onDetached) => {
    const serving = Promise.withResolvers<void>();
    this.#worker.onerror = (event) => {
      event.preventDefault();
      serving.reject(new Error(event.message));
    };
    this.#worker.onmessage = ({ data }: MessageEvent<WorkerEvent>) => {
      if (data.event === "serving") serving.resolve();
      else onDetached(data.error === undefined ? undefined : new Error(data.error));
    };
    const { counters } = this;
    const { readOnly = file.readOnly, ...backend } = this.#backend as ServedOptions;
    this.#tell({
      command: "serve",
      fd,
      wakeFd: this.#wake.fd,
      counters,
      backend,
      fileName: file.fileName,
      readOnly,
    });
    await serving.promise;
  };

  /** Lets hanging reads end. */
  release(): void {
    this.#tell({ command: "release" });
  }

  /** Ends the Worker in the middle of whatever it does; the descriptor stays open. */
  kill(): void {
    this.#worker.terminate();
  }

  [Symbol.dispose](): void {
    this.#worker.terminate();
    this.#wake[Symbol.dispose]();
  }

  #tell(command: WorkerCommand): void {
    this.#worker.postMessage(command);
    this.#wake.signal();
  }
}

/** A device with its server. */
export interface Served<D> extends AsyncDisposable {
  device: D;
  server: FileServer;
}

/** Attaches a backend as a file. */
export function serveFile(options: ServedOptions): Promise<Served<FuseDevice>> {
  return served(options, ({ serve }) => {
    const { readOnly = false, at } = options;
    return attachFuse({ serve, readOnly, at });
  });
}

/** Attaches a backend as a loop device. */
export function serveLoop(options: ServedOptions): Promise<Served<LoopDevice>> {
  return served(options, ({ serve }) => {
    const { readOnly = false, at, size } = options;
    return attachLoop({ serve, readOnly, at, size });
  });
}

async function served<D extends FuseDevice | LoopDevice>(
  options: ServedOptions,
  attach: (server: FileServer) => Promise<D>,
): Promise<Served<D>> {
  const server = new FileServer(options);
  try {
    const device = await attach(server);
    return {
      device,
      server,
      [Symbol.asyncDispose]: async () => {
        await device.detach({ force: true });
        server[Symbol.dispose]();
      },
    };
  } catch (error) {
    server[Symbol.dispose]();
    throw error;
  }
}
