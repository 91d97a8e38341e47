/** Regions that are named by `delay:` URLs: opened here, served by a host, copied to and told of. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { openLibc } from "../ffi/libc.ts";
import { RemoteError, TelemapError, UsageError } from "../lib/backend/errors.ts";
import { Pattern } from "../lib/backend/pattern.ts";
import { openBackend } from "../lib/host/open_backend.ts";
import { serve } from "../lib/host/serve.ts";
import { assertBytes, pattern, readBack } from "./backend_model.ts";
import { telemap } from "./telemap_process.ts";

openLibc();

/** Asserts that a call takes so many ms at least, as it can always take more. */
async function assertTakes(milliseconds: number, call: () => unknown): Promise<void> {
  const begun = performance.now();
  await call();
  const taken = performance.now() - begun;
  assert(taken >= milliseconds - 1e-6, `${taken} ms are less than ${milliseconds} ms`);
}

Deno.test("openBackend() delays what a delay: URL names, as often as it says", async () => {
  await using once = await openBackend("delay:memory:1MiB#rtt=10ms");
  await assertTakes(10, () => once.readAt(new Uint8Array(1), 0));
  await using twice = await openBackend("delay:delay:memory:1MiB#rtt=10ms#rtt=15ms");
  await assertTakes(25, () => twice.readAt(new Uint8Array(1), 0));
  await assertRejects(() => openBackend("delay:memory:1MiB#rtt=soon"), UsageError, "25ms");
  await assertRejects(() => openBackend("delay:#rtt=1ms"), UsageError, "known forms");
});

Deno.test("a host serves a delayed region to all its clients, over both wires", async () => {
  const listen = ["nbd://127.0.0.1:0", "telemap://127.0.0.1:0"];
  await using server = await serve("delay:pattern:16MiB?seed=3#rtt=20ms&rate=200MB/s", listen);
  for (const url of server.urls) {
    await using client = await openBackend(url);
    const expected = new Uint8Array(100_000);
    new Pattern(3).fill(expected, 4096);
    await assertTakes(20, async () => {
      assertBytes(await readBack(client, 4096, 100_000), expected, "What was served");
    });
    await assertTakes(20 + 40 - 0.25, () =>
      Promise.all(
        Array.from({ length: 80 }, (_, index) => readBack(client, index * 100_000, 100_000)),
      ));
  }
});

Deno.test("a host passes on the errors of a delayed region", async () => {
  const server = await serve("delay:memory:1MiB#errors=1", "telemap://127.0.0.1:0");
  const client = await openBackend(server.url);
  const reading = async () => await client.readAt(new Uint8Array(1), 0);
  assertEquals((await assertRejects(reading, RemoteError)).code, "EIO");
  await client.close();
  await assertRejects(() => server.close(), TelemapError, "Cannot flush");
});

Deno.test("copy makes a delayed file that is not there yet, and info tells of it", async () => {
  const directory = await Deno.makeTempDir({ prefix: "telemap-test-" });
  try {
    await Deno.writeFile(`${directory}/source`, pattern(100_000, 1));
    const target = `delay:file:${directory}/target#rtt=2ms`;
    const copied = await telemap(["copy", `file:${directory}/source`, target, "--verify"]);
    assertEquals({ code: copied.code, err: copied.err }, { code: 0, err: "" });
    assertBytes(await Deno.readFile(`${directory}/target`), pattern(100_000, 1), "The copy");
    const { code, out } = await telemap(["info", target, "--json"]);
    const { size, durable, abilities } = JSON.parse(out);
    assertEquals([code, size, durable], [0, 100_000, true]);
    assertEquals(abilities, ["zero", "discard", "extents"]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("info tells of a delayed region in memory", async () => {
  const { code, out, err } = await telemap(["info", "delay:memory:1MiB#rtt=25ms"]);
  assertEquals({ code, err }, { code: 0, err: "" });
  assertStringIncludes(out, "1MiB");
});
