/**
 * A Worker for device tests that serves one backend by FUSE on the descriptor it is given.
 *
 * @module
 */
import { EventFd } from "../../ffi/epoll.ts";
import type { Backend } from "../../lib/backend/backend.ts";
import { openFile } from "../../lib/backend/file.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { FuseServer } from "../../lib/fuse/server.ts";
import { Reactor } from "../../lib/net/reactor.ts";
import { CountedBackend, type Manner } from "./counted_backend.ts";

/** Which backend is served. */
export interface ServedBackend {
  /** Bytes. */
  size: number;
  /** A file that holds them; memory unless told. */
  path?: string;
  /** Serves memory or file as they are, not counted. */
  bare?: boolean;
  /** How a counted backend answers; at once unless told. */
  manner?: Manner;
}

/** To the Worker; each is followed by a signal of the wake descriptor. */
export type WorkerCommand =
  | {
    command: "serve";
    fd: number;
    wakeFd: number;
    fileName: string;
    readOnly: boolean;
    backend: ServedBackend;
    counters: Int32Array<SharedArrayBuffer>;
  }
  | { command: "release" }
  | { command: "stop" };

/** From the Worker. */
export type WorkerEvent = { event: "serving" } | { event: "detached"; error?: string };

interface WorkerScope {
  onmessage: ((event: MessageEvent<WorkerCommand>) => void) | null;
  postMessage(message: WorkerEvent): void;
  close(): void;
}

const scope = self as unknown as WorkerScope;
let backend: Backend | undefined;
let reactor: Reactor | undefined;

function open(served: ServedBackend, counters: Int32Array<SharedArrayBuffer>): Backend {
  const { size, path, bare = false, manner = "at once" } = served;
  const store = path === undefined ? openMemory({ size }) : openFile({ path, size });
  return bare ? store : new CountedBackend(store, manner, counters);
}

scope.onmessage = ({ data }) => {
  switch (data.command) {
    case "serve": {
      const { fd, wakeFd, fileName, readOnly } = data;
      backend = open(data.backend, data.counters);
      reactor = new Reactor(new EventFd(wakeFd), { blocking: true });
      new FuseServer(reactor, fd, backend, {
        fileName,
        readOnly,
        onDetached: (error) => {
          scope.postMessage({ event: "detached", ...(error && { error: error.message }) });
        },
      });
      reactor.run().then(() => scope.close());
      return scope.postMessage({ event: "serving" });
    }
    case "release":
      return (backend as CountedBackend).release();
    case "stop":
      return reactor!.stop();
  }
};
