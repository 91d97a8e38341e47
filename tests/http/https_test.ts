/** Objects of a well-behaved HTTP server as backends. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  ChangedError,
  RemoteError,
  UnsupportedError,
  UsageError,
} from "../../lib/backend/errors.ts";
import { openHttps } from "../../lib/backend/https.ts";
import { Pattern } from "../../lib/backend/pattern.ts";
import { readBack } from "../backend_model.ts";
import { testReadOnlyBackend } from "../read_only_conformance.ts";
import { ObjectServer } from "./object_server.ts";

const MIB = 1 << 20;

let server: ObjectServer;
for (const size of [3 * MIB + 1, 2 ** 40]) {
  testReadOnlyBackend(`an HTTP object of ${size} bytes`, {
    open: () => {
      server = new ObjectServer({ size });
      return openHttps(server.url);
    },
    fill: (buffer, offset) => server.pattern.fill(buffer, offset),
    remove: () => server[Symbol.asyncDispose](),
  });
}

Deno.test("openHttps() asks for no bytes where HEAD tells all", async () => {
  await using server = new ObjectServer({ size: 1000 });
  await using backend = await openHttps(`${server.url}?version=3`);
  assertEquals([backend.size, backend.version], [1000, '"1"']);
  assertEquals(server.requests.map(({ method }) => method), ["HEAD"]);
});

Deno.test("each read is one request for its range, on condition of the ETag", async () => {
  await using server = new ObjectServer({ size: 1000 });
  await using backend = await openHttps(server.url);
  await readBack(backend, 10, 20);
  await readBack(backend, 999, 1);
  await readBack(backend, 5, 0);
  assertEquals(server.ranges, ["bytes=10-29", "bytes=999-999"]);
  for (const { headers } of server.requests.slice(1)) {
    assertEquals(headers.get("if-match"), '"1"');
    assertEquals(headers.get("accept-encoding"), "identity");
  }
});

Deno.test("an object with no strong ETag is pinned by Last-Modified", async () => {
  await using server = new ObjectServer({ size: 1000 });
  server.etag = 'W/"1"';
  server.modified = new Date(Date.now() - 5000);
  await using backend = await openHttps(server.url);
  assertEquals(server.pattern.findDifference(await readBack(backend, 0, 1000), 0), -1);
  server.modified = new Date();
  await assertRejects(() => readBack(backend, 0, 1), ChangedError, "has changed since");
});

Deno.test("openHttps() refuses an object of which it could not tell when it changes", async () => {
  await using server = new ObjectServer({ size: 1000 });
  for (const etag of [undefined, 'W/"1"', "1"]) {
    server.etag = etag;
    await assertRejects(() => openHttps(server.url), UnsupportedError, "a strong ETag or Last-M");
  }
});

Deno.test("openHttps() asks for the first byte where HEAD is refused, or says too little", async () => {
  await using server = new ObjectServer({ size: 1000 });
  for (const status of [200, 400, 403, 405, 501]) {
    server.intercept = ({ method }) =>
      method === "HEAD" ? new Response(null, { status, headers: { etag: '"1"' } }) : undefined;
    await using backend = await openHttps(server.url);
    assertEquals(backend.size, 1000);
    assertEquals(server.ranges.pop(), "bytes=0-0");
  }
});

Deno.test("openHttps() refuses what is no URL of an object", async () => {
  for (const url of ["https://", "ftp://host/a", "http://host/a#b", "file:/a"]) {
    await assertRejects(() => openHttps(url), UsageError, "Cannot use the URL");
  }
});

Deno.test("a read while the object is replaced shows one version, or fails", async () => {
  await using server = new ObjectServer({ size: 40 * MIB });
  const versions = [1, 2].map((seed) => new Pattern(seed));
  await using backend = await openHttps(server.url);
  let answered = 0;
  // The object comes and goes: some of the five requests of each read find another one.
  server.intercept = () => {
    server.replace(Math.floor(answered++ / 7) % 2 + 1);
    return undefined;
  };
  const failed = { count: 0 };
  for (let read = 0; read < 6; read++) {
    try {
      const found = await readBack(backend, 0, read % 2 === 0 ? 40 * MIB : 8 * MIB);
      assertEquals(versions[0]!.findDifference(found, 0), -1);
    } catch (error) {
      if (!(error instanceof ChangedError)) throw error;
      assertEquals(error.code, "ESTALE");
      failed.count++;
    }
  }
  assert(failed.count > 0 && failed.count < 6, `${failed.count} of 6 reads failed`);
});

Deno.test("no more than 16 requests are in flight, and as many as that", async () => {
  await using server = new ObjectServer({ size: MIB });
  await using backend = await openHttps(server.url);
  const held: (() => void)[] = [];
  let arrived = 0, most = 0;
  server.intercept = async () => {
    await new Promise<void>((resolve) => {
      most = Math.max(most, held.push(resolve));
      if (++arrived === 16) held.shift()!();
    });
    return undefined;
  };
  // Whatever is sent at once arrives while the answers go out one by one.
  const reads = Array.from({ length: 60 }, async (_, index) => {
    assertEquals(server.pattern.findDifference(await readBack(backend, index, 1000), index), -1);
    held.shift()?.();
  });
  await Promise.all(reads);
  assertEquals(most, 16);
});

Deno.test("redirects are followed once, and again when their end is no more", async () => {
  await using server = new ObjectServer({ size: 1000 });
  let end = "/signed/1";
  server.intercept = ({ path }) => {
    if (path === "/object") return Response.redirect(server.urlOf("/hop"), 307);
    if (path === "/hop") return new Response(null, { status: 302, headers: { location: end } });
    return path === end ? undefined : new Response(null, { status: 403 });
  };
  await using backend = await openHttps(server.url);
  server.requests.length = 0;
  await readBack(backend, 0, 10);
  await readBack(backend, 10, 10);
  assertEquals(server.requests.map(({ path }) => path), ["/signed/1", "/signed/1"]);
  end = "/signed/2";
  server.requests.length = 0;
  await readBack(backend, 20, 10);
  await readBack(backend, 30, 10);
  assertEquals(
    server.requests.map(({ path }) => path),
    ["/signed/1", "/object", "/hop", "/signed/2", "/signed/2"],
  );
  end = "/signed/3";
  server.replace(9);
  await assertRejects(() => readBack(backend, 40, 10), ChangedError);
  server.intercept = () => new Response(null, { status: 403 });
  const error = await assertRejects(() => readBack(backend, 50, 10), RemoteError, "/object");
  assertEquals(error.code, "EACCES");
});

Deno.test("user and password go to their server, and into no message", async () => {
  await using server = new ObjectServer({ size: 1000 });
  await using other = new ObjectServer({ size: 1000 });
  server.intercept = ({ path, headers }) => {
    const known = headers.get("authorization") === `Basic ${btoa("me:se cret")}`;
    if (!known) return new Response(null, { status: 401 });
    if (path === "/object") return Response.redirect(server.urlOf("/inside"));
    if (path === "/away") return Response.redirect(other.url);
    return undefined;
  };
  const login = (url: string) => url.replace("//", "//me:se%20cret@");
  await using backend = await openHttps(login(server.url));
  await readBack(backend, 0, 1000);
  await using elsewhere = await openHttps(login(server.urlOf("/away")));
  await readBack(elsewhere, 0, 1000);
  assertEquals(other.requests.map(({ headers }) => headers.get("authorization")), [null, null]);
  const wrong = `${server.url.replace("//", "//me:guess@")}?signature=12345`;
  const error = await assertRejects(() => openHttps(wrong), RemoteError, "status 401");
  assertEquals([error.code, /guess|12345/.test(error.message)], ["EACCES", false]);
});
