/** Objects of HTTP servers, and patterns, where a Worker serves them, and by the command line. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { cpuUsage } from "node:process";
import { openLibc } from "../../ffi/libc.ts";
import { openBackend } from "../../lib/host/open_backend.ts";
import { serve } from "../../lib/host/serve.ts";
import { Pattern } from "../../lib/backend/pattern.ts";
import { readBack } from "../backend_model.ts";
import { telemap, TelemapProcess } from "../telemap_process.ts";
import { makeCertificate } from "./certificate.ts";
import { ObjectServer } from "./object_server.ts";

openLibc();

const MIB = 1 << 20;

for (const protocol of ["nbd", "telemap"]) {
  Deno.test(`serve() serves an object and a pattern over ${protocol}, side by side`, async () => {
    await using object = new ObjectServer({ size: 20 * MIB });
    await using server = await serve(object.url, `${protocol}://127.0.0.1:0/first`, {
      exports: [{ name: "second", backend: "pattern:1TiB?seed=2" }],
    });
    assertEquals([server.size, server.durable], [20 * MIB, true]);
    await using first = await openBackend(server.url);
    await using second = await openBackend(server.url.replace(/first$/, "second"));
    assertEquals([first.readOnly, second.readOnly], [true, true]);
    const offsets = Array.from({ length: 100 }, (_, index) => index * 100_003);
    await Promise.all(offsets.map(async (offset) => {
      assertEquals(object.pattern.findDifference(await readBack(first, offset, 5000), offset), -1);
      const far = 2 ** 39 + offset;
      assertEquals(new Pattern(2).findDifference(await readBack(second, far, 5000), far), -1);
    }));
  });
}

Deno.test("a client that comes back to another object is told, not mixed up", async () => {
  await using object = new ObjectServer({ size: MIB });
  let server = await serve(object.url, "telemap://127.0.0.1:0");
  const { url } = server;
  await using client = await openBackend(url);
  await readBack(client, 0, 4096);
  await server.close();
  object.replace(2);
  server = await serve(object.url, url);
  try {
    await assertRejects(() => readBack(client, 0, 4096), Error, "another region");
  } finally {
    await server.close();
  }
});

Deno.test("a Worker that serves an object is at rest while nobody asks", async () => {
  await using object = new ObjectServer({ size: MIB });
  await using server = await serve(object.url, "nbd://127.0.0.1:0");
  await using client = await openBackend(server.url);
  await readBack(client, 0, 4096);
  await new Promise((resolve) => setTimeout(resolve, 100));
  const before = cpuUsage();
  await new Promise((resolve) => setTimeout(resolve, 500));
  const { user, system } = cpuUsage(before);
  assert(user + system < 100_000, `${user + system} us of work in 500 ms`);
});

Deno.test("telemap serves, tells of and copies an object by https", async () => {
  const directory = await Deno.makeTempDir({ prefix: "telemap-https-" });
  const tls = makeCertificate();
  const env = { DENO_CERT: `${directory}/ca.pem` };
  await Deno.writeTextFile(env.DENO_CERT, tls.cert);
  await using object = new ObjectServer({ size: 3 * MIB + 5, tls });
  try {
    const info = await telemap(["info", object.url, "--json"], env);
    assertEquals(info.err, "");
    const { size, readOnly, version } = JSON.parse(info.out);
    assertEquals([size, readOnly, version], [object.size, true, '"1"']);
    await using server = new TelemapProcess(
      ["serve", object.url, "--listen", "telemap://127.0.0.1:0", "--json"],
      env,
    );
    const { url } = await server.next();
    const path = `${directory}/copy`;
    const copied = await telemap(["copy", `${url}`, `file:${path}`, "--verify"]);
    assertEquals([copied.code, copied.err], [0, ""]);
    const found = await Deno.readFile(path);
    assertEquals(found.length, object.size);
    assertEquals(object.pattern.findDifference(found, 0), -1);
    server.kill("SIGTERM");
    assertEquals((await server.end()).code, 0);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("telemap refuses a certificate that nobody vouches for, and http behind https", async () => {
  const directory = await Deno.makeTempDir({ prefix: "telemap-https-" });
  const tls = makeCertificate();
  const env = { DENO_CERT: `${directory}/ca.pem` };
  await Deno.writeTextFile(env.DENO_CERT, tls.cert);
  await using object = new ObjectServer({ size: 1000, tls });
  await using plain = new ObjectServer({ size: 1000 });
  object.intercept = () => Response.redirect(plain.url);
  try {
    const unknown = await telemap(["info", object.url]);
    assertEquals(unknown.code, 1);
    assertStringIncludes(unknown.err, "invalid peer certificate");
    const downgraded = await telemap(["info", object.url], env);
    assertEquals(downgraded.code, 1);
    assertStringIncludes(downgraded.err, "it may lead to https");
    assertEquals(plain.requests, []);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("telemap tells of a pattern, and refuses to copy to it", async () => {
  const info = await telemap(["info", "pattern:1GiB?seed=7", "--json"]);
  const { size, readOnly, durable } = JSON.parse(info.out);
  assertEquals([size, readOnly, durable], [2 ** 30, true, true]);
  const copied = await telemap(["copy", "pattern:1MiB", "pattern:1MiB"]);
  assertEquals(copied.code, 2);
  assertStringIncludes(copied.err, "read-only");
});
