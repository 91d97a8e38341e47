/**
 * What a client sees of a server, the real command line, that is killed and started anew.
 *
 * @module
 */
import { assertEquals, assertRejects } from "@std/assert";
import { connectTelemap, type RemoteBackend } from "../lib/rpc/client.ts";
import { IntegrityError } from "../mod.ts";
import { TelemapProcess } from "./telemap_process.ts";

const SIZE = 8 << 20;
const CONTENT = crypto.getRandomValues(new Uint8Array(60_000));
/** In one piece, small, and in many pieces. */
const OFFSETS = [0, 1 << 20, (5 << 20) + 1];

async function startServer(
  backend: string,
  listen: string,
): Promise<{ process: TelemapProcess; url: string }> {
  const process = new TelemapProcess(["serve", backend, "--listen", listen, "--json"]);
  const { url } = await process.next();
  return { process, url: `${url}` };
}

/** Writes through a server that is killed then, does something, and starts another in its place. */
async function restarting(
  backend: (directory: string) => string,
  meanwhile: (directory: string) => Promise<void>,
  check: (region: RemoteBackend, lines: string[]) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "telemap-test-" });
  const lines: string[] = [];
  const first = await startServer(backend(directory), "telemap://127.0.0.1:0");
  try {
    await using killed = first.process;
    await using region = await connectTelemap(first.url, { log: (line) => lines.push(line) });
    for (const offset of OFFSETS) await region.writeAt(CONTENT, offset);
    killed.kill("SIGKILL");
    await killed.end();
    await meanwhile(directory);
    const second = await startServer(backend(directory), first.url);
    await using _process = second.process;
    await check(region, lines);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function readContent(region: RemoteBackend, offset: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(CONTENT.length);
  await region.readAt(bytes, offset);
  return bytes;
}

const LASTING: Record<string, (directory: string) => string> = {
  "a file": (directory) => `file:${directory}/region?size=${SIZE}`,
  "a directory": (directory) => `dir:${directory}/region?size=${SIZE}&chunk=1MiB`,
};

for (const [name, backend] of Object.entries(LASTING)) {
  Deno.test(`${name} whose server was killed lost nothing, and a flush says so`, async () => {
    await restarting(backend, async () => {}, async (region) => {
      await region.flush();
      for (const offset of OFFSETS) assertEquals(await readContent(region, offset), CONTENT);
    });
  });
}

Deno.test("memory whose server was killed is another region, which is refused for good", async () => {
  await restarting(() => `memory:${SIZE}`, async () => {}, async (region, lines) => {
    await assertRejects(() => readContent(region, 0), IntegrityError, "another region");
    await assertRejects(async () => await region.flush(), IntegrityError, "another region");
    const reasons = lines.filter((line) => line.includes("has another region now"));
    assertEquals(reasons.length, 1, lines.join("\n"));
  });
});

Deno.test("a file that was made anew is another region", async () => {
  await restarting(
    LASTING["a file"]!,
    (directory) => Deno.remove(`${directory}/region`),
    async (region) => {
      await assertRejects(() => readContent(region, 0), IntegrityError, "another region");
    },
  );
});
