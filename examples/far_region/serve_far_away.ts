/**
 * A region that is far away, as far as a host alone can have one: a process of its own serves it, and
 * what mounts it does so over a link that is as slow as a long one.
 *
 * @module
 */
import { TextLineStream } from "@std/streams";

const CLI = new URL("../../cmd/telemap.ts", import.meta.url).pathname;

/** A region, served until it is disposed of. */
export interface FarRegion extends AsyncDisposable {
  /** By what URL it is opened. */
  readonly url: string;
}

/** Serves a backend; `link` are options of a `delay:` URL. */
export async function serveFarAway(backend: string, link: string): Promise<FarRegion> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", CLI, "serve", backend, "--listen", "telemap://127.0.0.1:0", "--json"],
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream())
    .getReader();
  const { value } = await lines.read();
  if (value === undefined) throw new Error(`telemap serve ended: ${(await child.status).code}`);
  const { url } = JSON.parse(value) as { url: string };
  return {
    url: `delay:${url}#${link}`,
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await lines.cancel();
      await child.status;
    },
  };
}
