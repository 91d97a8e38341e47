/**
 * A program for tests that has the record of a region, as a seeder or a leecher without a device. It
 * prints a line of JSON once it has it, and one once it has copied it, and goes on until it is killed.
 *
 *     deno run -A handover_holder.ts seed BACKEND
 *     deno run -A handover_holder.ts leech SOURCE CACHE
 *
 * @module
 */
import { openLibc } from "../../ffi/libc.ts";
import { BackendHost } from "../../lib/host/host.ts";
import { openPlaces } from "../../lib/host/serve.ts";

openLibc();

const nothing = () => Promise.resolve();

async function seed(backend: string): Promise<void> {
  const places = openPlaces("telemap://127.0.0.1:0", {});
  const host = await BackendHost.startSeeded(backend, { chunkSize: 65536 });
  const program = { suspend: nothing, resume: nothing, flush: nothing, throttle: nothing };
  await host.seed(program, () => {});
  await places.serve(host);
  console.log(JSON.stringify({ event: "ready", url: places.urls[0] }));
}

async function leech(source: string, cache: string): Promise<void> {
  const leech = crypto.getRandomValues(new Uint8Array(16));
  const options = { leech, peer: source, chunkSize: 65536 };
  const host = await BackendHost.startLeeched(source, cache, options);
  console.log(JSON.stringify({ event: "ready" }));
  await host.copied();
  console.log(JSON.stringify({ event: "copied" }));
}

const [mode, first, second] = Deno.args as [string, string, string];
try {
  if (mode === "seed") await seed(first);
  else await leech(first, second);
} catch (error) {
  console.error((error as Error).message);
  Deno.exit(1);
}
