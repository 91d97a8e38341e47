/** serve(): where it listens, whom it lets in, and what it leaves behind. */
import { assert, assertEquals, assertIsError, assertRejects } from "@std/assert";
import { concat } from "@std/bytes";
import { cpuUsage } from "node:process";
import { SystemError } from "../ffi/errno.ts";
import { close } from "../ffi/file.ts";
import { openLibc } from "../ffi/libc.ts";
import { connectUnix, listenUnix } from "../ffi/socket.ts";
import type { Awaitable, Backend } from "../lib/backend/backend.ts";
import {
  IntegrityError,
  ReadOnlyError,
  UnsupportedError,
  UsageError,
} from "../lib/backend/errors.ts";
import { serve } from "../lib/host/serve.ts";
import { assertBytes, pattern } from "./backend_model.ts";
import { BlockBackend } from "./block_backend.ts";
import { ConnWire } from "./nbd/conn_wire.ts";
import { RawClient, requestBytes } from "./nbd/raw_client.ts";

openLibc();

const READ = 0, WRITE = 1, FLUSH = 3, TRIM = 4, WRITE_ZEROES = 6, FAST_ZERO = 16;

/** Runs with a new directory, whose entries it can list. */
async function withDirectory(run: (path: string) => Promise<void>): Promise<void> {
  const path = Deno.makeTempDirSync();
  try {
    await run(path);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

function entries(path: string): string[] {
  return [...Deno.readDirSync(path)].map(({ name }) => name).sort();
}

function unixUrl(path: string, name = ""): string {
  return `nbd+unix:///${name}?socket=${path}`;
}

/** Asserts that a server serves reads there. */
async function assertServes(url: string): Promise<void> {
  await using wire = await ConnWire.connect(url);
  const client = await RawClient.go(wire);
  assertEquals(await client.read(0, 3), new Uint8Array(3));
}

Deno.test("serve() listens on a Unix socket for its user alone, until it is closed", async () => {
  await withDirectory(async (path) => {
    const server = await serve("memory:1MiB", unixUrl(`${path}/socket`, "disk"));
    const { mode, isSocket } = Deno.statSync(`${path}/socket`);
    assertEquals([isSocket, mode! & 0o777], [true, 0o600]);
    assertEquals(server.url, unixUrl(`${path}/socket`, "disk"));
    assertEquals([server.size, server.durable], [1 << 20, false]);
    await assertServes(server.url);
    const closing = server.close();
    assertEquals(server.close(), closing);
    await closing;
    await server.close();
    assertEquals(entries(path), []);
    await assertRejects(() => ConnWire.connect(server.url));
  });
});

Deno.test("serve() takes the place of a server that is gone", async () => {
  await withDirectory(async (path) => {
    close(listenUnix(`${path}/socket`));
    assertEquals(entries(path), ["socket"]);
    await using server = await serve("memory:1MiB", unixUrl(`${path}/socket`));
    await assertServes(server.url);
  });
});

Deno.test("serve() leaves a server that is there alone, and says so", async () => {
  await withDirectory(async (path) => {
    await using first = await serve("memory:1MiB", unixUrl(`${path}/socket`));
    const error = await assertRejects(
      () => serve(`file:${path}/region?size=1MiB`, first.url),
      SystemError,
      "stop it or choose another address",
    );
    assertEquals(error.code, "EADDRINUSE");
    assertEquals(entries(path), ["socket"]);
    await assertServes(first.url);
    await using tcp = await serve("memory:1MiB", "nbd://127.0.0.1:0");
    await assertRejects(() => serve("memory:1MiB", tcp.url), SystemError, "EADDRINUSE");
  });
});

Deno.test("serve() leaves a server that is too busy to answer alone", async () => {
  await withDirectory(async (path) => {
    const fds = [listenUnix(`${path}/socket`, 0o600, 0), connectUnix(`${path}/socket`)];
    await assertRejects(() => serve("memory:1MiB", unixUrl(`${path}/socket`)), SystemError);
    assertEquals(entries(path), ["socket"]);
    for (const fd of fds) close(fd);
  });
});

Deno.test("serve() replaces nothing that is no socket", async () => {
  await withDirectory(async (path) => {
    Deno.writeTextFileSync(`${path}/socket`, "precious");
    await assertRejects(() => serve("memory:1MiB", unixUrl(`${path}/socket`)), SystemError);
    assertEquals(Deno.readTextFileSync(`${path}/socket`), "precious");
  });
});

Deno.test("a closing server leaves the socket of the one that took its place", async () => {
  await withDirectory(async (path) => {
    const first = await serve("memory:1MiB", unixUrl(`${path}/socket`));
    Deno.removeSync(`${path}/socket`);
    await using second = await serve("memory:1MiB", unixUrl(`${path}/socket`));
    await first.close();
    await assertServes(second.url);
  });
});

Deno.test("serve() listens on TCP, on the port that the URL says at the end", async () => {
  for (const host of ["127.0.0.1", "localhost", "[::1]", "127.1.2.3"]) {
    await using server = await serve("memory:1MiB", `nbd://${host}:0/disk`);
    const { port, pathname } = new URL(server.url.replace("nbd:", "http:"));
    assert(Number(port) > 0);
    assertEquals(pathname, "/disk");
    await assertServes(server.url);
  }
});

Deno.test("serve() listens beyond this host only when it is told that this is insecure", async () => {
  const hosts = ["0.0.0.0", "[::]", "192.0.2.1", "127.0.0.1.example.org", "127.example.org"];
  for (const host of hosts) {
    const error = await assertRejects(
      () => serve("memory:1MiB", `nbd://${host}:0`),
      UsageError,
      "beyond this host",
    );
    assert(error.message.includes("--insecure"));
    await assertRejects(() => serve("memory:1MiB", `telemap://${host}:0`), UsageError, "token");
  }
  await using nbd = await serve("memory:1MiB", "nbd://0.0.0.0:0", { insecure: true });
  await assertServes(nbd.url.replace("0.0.0.0", "127.0.0.1"));
  const options = { token: "secret" };
  await using _guarded = await serve("memory:1MiB", "telemap://0.0.0.0:0", options);
  await assertRejects(() => serve("memory:1MiB", "nbd://0.0.0.0:0", options), UsageError);
});

Deno.test("serve() refuses options that cannot be", async () => {
  const url = "nbd://127.0.0.1:0";
  const wrong = [
    { maxConnections: 0 },
    { maxConnections: 1.5 },
    { handshakeMs: -1 },
    { handshakeMs: NaN },
    { token: "" },
    { token: "x".repeat(1025) },
    { name: "x".repeat(4097) },
    { name: "nul\0" },
    { description: "\ud800" },
    { description: "ä".repeat(2049) },
  ];
  for (const options of wrong) {
    await assertRejects(() => serve("memory:1MiB", url, options), UsageError);
  }
  await assertRejects(() => serve("memory:1MiB", []), UsageError);
  await assertRejects(() => serve("memory:1MiB", "nbds://127.0.0.1:0"), UnsupportedError);
  await assertRejects(() => serve("memory:1MiB", "http://127.0.0.1"), UsageError);
  await assertRejects(() => serve("memory:lots", url), UsageError);
  await assertRejects(() => serve("ftp://somewhere", url), UsageError);
});

Deno.test("serve() serves one region at several URLs", async () => {
  await withDirectory(async (path) => {
    const urls = [unixUrl(`${path}/a`), "nbd://127.0.0.1:0/b", unixUrl("@telemap-test-abstract")];
    await using server = await serve("memory:1MiB", [...urls, "telemap://127.0.0.1:0"]);
    assertEquals(server.urls.length, 4);
    assertEquals(server.url, server.urls[0]);
    await using one = await ConnWire.connect(server.urls[0]!);
    await using other = await ConnWire.connect(server.urls[1]!);
    const writer = await RawClient.go(one), reader = await RawClient.go(other, { name: "b" });
    await writer.error({ command: WRITE, payload: pattern(5000, 1) });
    assertBytes(await reader.read(0, 5000), pattern(5000, 1), "What the other one wrote");
  });
});

Deno.test("serve() leaves nothing behind when a URL or the backend cannot be had", async () => {
  await withDirectory(async (path) => {
    const region = `file:${path}/region?size=1MiB`;
    const good = unixUrl(`${path}/good`);
    for (const bad of [`${path}/none/socket`, "/proc/socket"]) {
      await assertRejects(() => serve(region, [good, unixUrl(bad)]), SystemError);
      assertEquals(entries(path), []);
    }
    await assertRejects(() => serve(region, [good, good]), SystemError, "EADDRINUSE");
    assertEquals(entries(path), []);
    await assertRejects(() => serve("file:/none/region", good), Error);
    assertEquals(entries(path), []);
    const module = { module: "data:text/javascript,export default 5" };
    await assertRejects(() => serve(module, good), UsageError);
    assertEquals(entries(path), []);
    await using server = await serve(region, good);
    await assertServes(server.url);
  });
});

Deno.test("serve() takes no descriptor that was not handed over", async () => {
  for (const fd of [3, 4, 99]) {
    const url = `nbd+systemd:///?fd=${fd}`;
    await assertRejects(() => serve("memory:1MiB", url), UsageError, "LISTEN_FDS");
  }
});

Deno.test("connections over the limit are closed, until others leave", async () => {
  const options = { maxConnections: 3 };
  await using server = await serve("memory:1MiB", "nbd://127.0.0.1:0", options);
  await using wires = new AsyncDisposableStack();
  const clients: RawClient[] = [];
  for (let index = 0; index < 3; index++) {
    clients.push(await RawClient.go(wires.use(await ConnWire.connect(server.url))));
  }
  await using over = await ConnWire.connect(server.url);
  await over.ended();
  assertEquals(over.receivedBytes, 0);
  for (const client of clients) assertEquals(await client.read(0, 1), new Uint8Array(1));
  clients[0]!.send({ command: 2 });
  await clients[0]!.wire.ended();
  await assertServes(server.url);
});

Deno.test("sockets that never speak are dropped in time, and close() does not wait for them", async () => {
  const options = { handshakeMs: 200, maxConnections: 300 };
  await using server = await serve("memory:1MiB", "nbd://127.0.0.1:0", options);
  const connect = () =>
    Promise.all(Array.from({ length: 200 }, () => ConnWire.connect(server.url)));
  for (const wire of await connect()) {
    await wire.ended();
    await wire[Symbol.asyncDispose]();
  }
  const silent = await connect();
  const began = performance.now();
  await server.close();
  assert(performance.now() - began < 2000);
  for (const wire of silent) {
    await wire.ended();
    await wire[Symbol.asyncDispose]();
  }
});

Deno.test("an idle server with a connected client uses no CPU", async () => {
  for (const backend of ["memory:1MiB", new BlockBackend({ size: 1 << 20, blockSize: 1 })]) {
    await using server = await serve(backend, "nbd://127.0.0.1:0");
    await using wire = await ConnWire.connect(server.url);
    const client = await RawClient.go(wire);
    await client.read(0, 100);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const before = cpuUsage();
    await new Promise((resolve) => setTimeout(resolve, 500));
    const { user, system } = cpuUsage(before);
    assert(user + system < 100_000, `${user + system} us of work in 500 ms`);
  }
});

/** A backend of this isolate, as users write them, that answers as a test wants. */
function userBackend(parts: Partial<Backend>): Backend {
  return {
    size: 1 << 20,
    blockSize: 1,
    durable: true,
    readOnly: false,
    readAt: (buffer) => void buffer.fill(7),
    writeAt: () => {},
    flush: () => {},
    close: () => {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
    ...parts,
  };
}

Deno.test("a Backend object is served from its isolate, in any order, and stays open", async () => {
  const closed: string[] = [];
  const backend = new BlockBackend({ size: 100_000, blockSize: 1, seed: 3 });
  const close = backend.close.bind(backend);
  backend.close = () => void closed.push("closed");
  await using server = await serve(backend, "nbd://127.0.0.1:0");
  assertEquals([server.size, server.durable], [100_000, false]);
  await using wire = await ConnWire.connect(server.url);
  const client = await RawClient.go(wire);
  const count = 300;
  for (let index = 0; index < count; index++) {
    const payload = pattern(200, index);
    client.send({ command: WRITE, offset: BigInt(index * 300), payload, cookie: BigInt(index) });
  }
  const order: bigint[] = [];
  while (order.length < count) {
    const { error, cookie } = await client.simple();
    assertEquals(error, 0);
    order.push(cookie);
  }
  assert(order.some((cookie, index) => cookie !== BigInt(index)), "Out of order");
  for (let index = 0; index < count; index += 17) {
    assertBytes(await client.read(index * 300, 200), pattern(200, index), `Write ${index}`);
  }
  await server.close();
  assertEquals(closed, []);
  assertEquals(backend.calls.flush, 1);
  close();
});

Deno.test("a Backend object of blocks is served at any alignment", async () => {
  await using backend = new BlockBackend({ size: 50_001, blockSize: 4096, seed: 4 });
  await using server = await serve(backend, "nbd://127.0.0.1:0");
  await using wire = await ConnWire.connect(server.url);
  const client = await RawClient.go(wire);
  const expected = new Uint8Array(50_001);
  const parts = [[1, 2], [4095, 2], [4096, 4096], [8000, 20_000], [50_000, 1]] as const;
  for (const [offset, length] of parts) {
    expected.set(pattern(length, offset), offset);
    const payload = pattern(length, offset);
    assertEquals(await client.error({ command: WRITE, offset: BigInt(offset), payload }), 0);
  }
  const zeroes = { command: WRITE_ZEROES, offset: 10_000n, length: 9000 };
  assertEquals(await client.error(zeroes), 0);
  expected.fill(0, 10_000, 19_000);
  assertBytes(await client.read(0, 50_001), expected, "The region");
});

Deno.test("errors of a Backend object cross with their kind", async () => {
  const errors: [Error, number][] = [
    [new ReadOnlyError(), 1],
    [new RangeError("outside"), 22],
    [new UsageError("wrong"), 22],
    [new IntegrityError("damaged"), 5],
    [Object.assign(new Error("full"), { code: "ENOSPC" }), 28],
    [new SystemError({ syscall: "write", errno: 122, subject: "it" }), 28],
    [new Error("anything"), 5],
  ];
  let thrown: Error;
  const fail = (): Awaitable<void> => {
    throw thrown;
  };
  const backend = userBackend({ readAt: fail, writeAt: fail, zero: fail, discard: fail });
  await using server = await serve(backend, "nbd://127.0.0.1:0");
  await using wire = await ConnWire.connect(server.url);
  const client = await RawClient.go(wire);
  for (const [error, number] of errors) {
    thrown = error;
    for (const command of [READ, TRIM, WRITE_ZEROES]) {
      assertEquals(await client.error({ command, length: 9 }), number, error.name);
    }
    assertEquals(await client.error({ command: WRITE, payload: new Uint8Array(3) }), number);
  }
  thrown = new UnsupportedError("no quick way");
  const fast = { command: WRITE_ZEROES, flags: FAST_ZERO, length: 9 };
  assertEquals(await client.error(fast), 95);
  const written: number[] = [];
  backend.writeAt = (buffer) => void written.push(buffer.length);
  assertEquals(await client.error({ command: WRITE_ZEROES, length: 9 }), 0);
  assertEquals(written, [9], "Zeroes are written where zeroing is refused");
});

Deno.test("a Backend object without zero and discard is served", async () => {
  const written: number[] = [];
  const writeAt = (buffer: Uint8Array) => void written.push(buffer.length);
  await using server = await serve(userBackend({ writeAt }), "nbd://127.0.0.1:0");
  await using wire = await ConnWire.connect(server.url);
  const client = await RawClient.go(wire);
  const fast = { command: WRITE_ZEROES, flags: FAST_ZERO, length: 9 };
  assertEquals(await client.error(fast), 95);
  assertEquals(await client.error({ command: TRIM, length: 9 }), 0);
  assertEquals(written, []);
  assertEquals(await client.error({ command: WRITE_ZEROES, length: 9 }), 0);
  assertEquals(written, [9]);
});

Deno.test("close() flushes, and fails where that fails", async () => {
  const backend = userBackend({
    flush: () => {
      throw Object.assign(new Error("the disk is gone"), { code: "ENODEV" });
    },
  });
  const server = await serve(backend, "nbd://127.0.0.1:0");
  const error = await assertRejects(() => server.close());
  assertIsError(error, Error, "the disk is gone");
  await assertRejects(() => server.close());
});

Deno.test("close() answers what is in hand", async () => {
  let release = () => {};
  const held = new Promise<void>((resolve) => release = resolve);
  const asked = Promise.withResolvers<void>();
  const readAt = (buffer: Uint8Array) => {
    asked.resolve();
    return held.then(() => void buffer.fill(9));
  };
  const server = await serve(userBackend({ readAt }), "nbd://127.0.0.1:0");
  await using wire = await ConnWire.connect(server.url);
  const client = await RawClient.go(wire);
  client.send({ command: READ, length: 5, cookie: 8n });
  await asked.promise;
  const closing = server.close();
  release();
  assertEquals(await client.simple(), { error: 0, cookie: 8n });
  assertEquals(await client.wire.take(5), new Uint8Array(5).fill(9));
  await wire.ended();
  await closing;
});

Deno.test("a server is closed under load: each reply that comes is whole and right", async () => {
  for (
    const backend of ["memory:1MiB", new BlockBackend({ size: 1 << 20, blockSize: 1, seed: 2 })]
  ) {
    const server = await serve(backend, "nbd://127.0.0.1:0");
    const hammer = async (loaded: () => void) => {
      await using wire = await ConnWire.connect(server.url);
      const client = await RawClient.go(wire);
      const batch = concat(Array(50).fill(requestBytes({ command: READ, length: 1000 })));
      let answered = 0;
      try {
        while (true) {
          client.wire.send(batch);
          for (let index = 0; index < 50; index++) {
            const { error } = await client.simple();
            if (error === 108) continue;
            assertEquals(error, 0);
            assertEquals(await client.wire.take(1000), new Uint8Array(1000));
            if (++answered === 200) loaded();
          }
        }
      } catch (error) {
        assertIsError(error, Error, "The server closed; 0 of 16 came");
      }
      return answered;
    };
    const loads = [0, 1, 2].map(() => Promise.withResolvers<void>());
    const hammers = loads.map(({ resolve }) => hammer(resolve));
    await Promise.all(loads.map(({ promise }) => promise));
    await server.close();
    for (const answered of await Promise.all(hammers)) assert(answered >= 200);
  }
});

Deno.test("read-only: by option, and where the backend is", async () => {
  const readOnly = userBackend({ readOnly: true });
  for (const [backend, options] of [["memory:1MiB", { readOnly: true }], [readOnly, {}]] as const) {
    await using server = await serve(backend, "nbd://127.0.0.1:0", options);
    await using wire = await ConnWire.connect(server.url);
    const client = await RawClient.go(wire);
    assertEquals(await client.error({ command: WRITE, payload: new Uint8Array(9) }), 1);
    assertEquals(await client.error({ command: FLUSH }), 0);
  }
});
