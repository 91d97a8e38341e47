/**
 * The server of the demo: `telemap serve` in a process of its own.
 *
 * @module
 */
import { TextLineStream } from "@std/streams";
import { ConnectionError } from "../lib/backend/errors.ts";

/** A server in another process; disposing of it stops that. */
export interface ServerProcess extends AsyncDisposable {
  /** Where it listens. */
  readonly url: string;
  /** Its process. */
  readonly pid: number;
}

/** Serves a backend at a free port of 127.0.0.1. Throws {@linkcode ConnectionError}. */
export async function startServer(backend: string): Promise<ServerProcess> {
  const program = Deno.build.standalone
    ? []
    : ["run", "--quiet", "--allow-all", import.meta.resolve("./telemap.ts")];
  const child = new Deno.Command(Deno.execPath(), {
    args: [...program, "serve", backend, "--listen", "telemap://127.0.0.1:0", "--json"],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const lines = child.stdout
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new TextLineStream())
    .getReader();
  const stop = async () => {
    try {
      child.kill("SIGTERM");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    while (!(await lines.read()).done);
    await child.status;
  };
  const { value } = await lines.read();
  if (value === undefined) {
    await stop();
    throw new ConnectionError("The server process ended before it listened");
  }
  const { url } = JSON.parse(value) as { url: string };
  return { url, pid: child.pid, [Symbol.asyncDispose]: stop };
}
