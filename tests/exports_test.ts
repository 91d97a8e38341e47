/** Several regions of one server, told apart by their names. */
import { assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../ffi/libc.ts";
import { ReadOnlyError, RemoteError, UsageError } from "../lib/backend/errors.ts";
import { openBackend } from "../lib/host/open_backend.ts";
import { serve } from "../lib/host/serve.ts";
import { listExports } from "../lib/nbd/client_open.ts";
import { parseAddress } from "../lib/net/address.ts";

openLibc();

const EXPORTS = [
  { name: "second", backend: "memory:2MiB", description: "the other one" },
  { name: "fixed", backend: "memory:3MiB", readOnly: true },
];
const LISTEN = ["nbd://127.0.0.1:0/first", "telemap://127.0.0.1:0/first"];

function named(url: string, name: string): string {
  return url.replace(/first$/, name);
}

Deno.test("serve() lists all its exports to NBD clients, the default one first", async () => {
  await using server = await serve("memory:1MiB", LISTEN, { exports: EXPORTS });
  assertEquals(await listExports(parseAddress(server.url)), [
    { name: "first", description: "" },
    { name: "second", description: "the other one" },
    { name: "fixed", description: "" },
  ]);
});

for (const [index, protocol] of ["nbd", "telemap"].entries()) {
  Deno.test(`serve() serves each export by its name over ${protocol}`, async () => {
    await using server = await serve("memory:1MiB", LISTEN, { exports: EXPORTS });
    const url = server.urls[index]!;
    await using first = await openBackend(named(url, "first"));
    await using second = await openBackend(named(url, "second"));
    await using unnamed = await openBackend(named(url, ""));
    assertEquals([first.size, second.size, unnamed.size], [1 << 20, 2 << 20, 1 << 20]);
    await second.writeAt(new Uint8Array([7]), 0);
    const byte = new Uint8Array(1);
    await first.readAt(byte, 0);
    assertEquals(byte[0], 0);
    await second.readAt(byte, 0);
    assertEquals(byte[0], 7);
    await second.flush();
  });

  Deno.test(`serve() keeps an export from being written over ${protocol}`, async () => {
    await using server = await serve("memory:1MiB", LISTEN, { exports: EXPORTS });
    await using fixed = await openBackend(named(server.urls[index]!, "fixed"));
    assertEquals(fixed.readOnly, true);
    await assertRejects(async () => await fixed.writeAt(new Uint8Array(1), 0), ReadOnlyError);
  });

  Deno.test(`serve() refuses a name that no export has over ${protocol}`, async () => {
    await using server = await serve("memory:1MiB", LISTEN, { exports: EXPORTS });
    const error = await assertRejects(
      () => openBackend(named(server.urls[index]!, "third")),
      RemoteError,
    );
    assertEquals(error.code, "ENOENT");
  });
}

Deno.test("serve() refuses exports that cannot be told apart", async () => {
  for (const name of ["", "first", "second"]) {
    const exports = [...EXPORTS, { name, backend: "memory:1MiB" }];
    await assertRejects(() => serve("memory:1MiB", LISTEN, { exports }), UsageError);
  }
});

Deno.test("serve() flushes and closes all its exports", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/region`;
    const exports = [{ name: "second", backend: `file:${path}?size=1MiB` }];
    const server = await serve("memory:1MiB", LISTEN, { exports });
    const second = await openBackend(named(server.urls[1]!, "second"));
    await second.writeAt(new Uint8Array([9]), 4096);
    await second.close();
    await server.close();
    assertEquals((await Deno.readFile(path))[4096], 9);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
