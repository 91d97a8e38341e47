/**
 * What a server costs that does nothing, and what opening a large region costs.
 *
 * @module
 */
import { openBackend } from "../mod.ts";
import { nbdUri, telemapServe } from "./processes.ts";
import { alternate, type Comparison, median } from "./statistics.ts";

/** The resident memory of an idle server that had one client, as a line. */
export async function idleMemory(): Promise<string> {
  const directory = await Deno.makeTempDir({ prefix: "telemap-bench-" });
  const socket = `${directory}/idle.sock`;
  try {
    await using server = telemapServe("memory:1GiB", nbdUri(socket));
    await server.untilExists(socket);
    await using region = await openBackend(nbdUri(socket));
    await region.readAt(new Uint8Array(4096), 0);
    const mebibytes = server.residentBytes / (1 << 20);
    return `Memory of an idle server with one client: ${mebibytes.toFixed(0)} MiB (limit 120)`;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Opening a sparse file of 1 TiB against one of 1 GiB, in ms. */
export async function compareOpening(rounds: number): Promise<Comparison> {
  const directory = await Deno.makeTempDir({ prefix: "telemap-bench-" });
  const open = (size: string) => async () => {
    const start = performance.now();
    await using region = await openBackend(`file:${directory}/${size}?size=${size}`);
    await region.readAt(new Uint8Array(4096), 0);
    return performance.now() - start;
  };
  try {
    const contestants = ["1TiB", "1GiB"].map((name) => ({ name, run: open(name) }));
    const figures = await alternate(contestants, rounds);
    const more = median(figures.get("1TiB")!) - median(figures.get("1GiB")!);
    const title = `Opening a sparse file (ms): 1 TiB takes ${more.toFixed(2)} ms more (limit 100)`;
    return { title, figures, better: "lower", subject: "1TiB" };
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}
