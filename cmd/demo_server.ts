/**
 * The server of the demo: `telemap serve` in a process of its own.
 *
 * @module
 */
import { ConnectionError } from "../lib/backend/errors.ts";
import { OwnProcess } from "./own_process.ts";

/** A server in another process; disposing of it stops that. */
export interface ServerProcess extends AsyncDisposable {
  /** Where it listens. */
  readonly url: string;
  /** Its process. */
  readonly pid: number;
}

/** Serves a backend at a free port of 127.0.0.1. Throws {@linkcode ConnectionError}. */
export async function startServer(backend: string): Promise<ServerProcess> {
  const server = new OwnProcess(["serve", backend, "--listen", "telemap://127.0.0.1:0", "--json"]);
  const stop = () => server[Symbol.asyncDispose]();
  const ready = await server.next<{ url: string }>();
  if (ready === undefined) {
    await stop();
    throw new ConnectionError("The server process ended before it listened");
  }
  return { url: ready.url, pid: server.pid, [Symbol.asyncDispose]: stop };
}
