/** The client of the native wire with its server: right, damaged, cut, restarted, gone. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { openLibc } from "../../ffi/libc.ts";
import type { Backend } from "../../lib/backend/backend.ts";
import {
  ClosedError,
  ConnectionError,
  DeadlineError,
  IntegrityError,
  ProtocolError,
  RemoteError,
  UnsupportedError,
  UsageError,
} from "../../lib/backend/errors.ts";
import { type MemoryBackend, openMemory } from "../../lib/backend/memory.ts";
import { serve, type Server } from "../../lib/host/serve.ts";
import {
  connectTelemap,
  type ConnectTelemapOptions,
  type RemoteBackend,
} from "../../lib/rpc/client.ts";
import { HEADER_BYTES, LIMIT } from "../../lib/rpc/wire.ts";
import { testBackend } from "../backend_conformance.ts";
import { pattern } from "../backend_model.ts";
import { inTime } from "../in_time.ts";
import { DelayedBackend } from "./delayed_backend.ts";
import { type Harm, HarmfulProxy } from "./harmful_proxy.ts";
import { TelemapProcess } from "../telemap_process.ts";
import { TestWireServer } from "./wire_server.ts";

openLibc();

const SIZE = 4 << 20;
/** Bytes that a client and a server say before the first frame. */
const CLIENT_HELLO = 56, SERVER_HELLO = 80;

/** Where a test is not about it, nobody needs to read of lost connections. */
const QUIET: ConnectTelemapOptions = { log: () => {} };

/** Runs a test with a client and a server of memory, and a proxy between them. */
async function withHarm(
  harm: Harm,
  run: (region: RemoteBackend, memory: MemoryBackend, proxy: HarmfulProxy) => Promise<void>,
  options: ConnectTelemapOptions = {},
): Promise<void> {
  await using memory = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend: memory });
  await using proxy = HarmfulProxy.start(server.url, harm);
  await using region = await connectTelemap(proxy.url, { ...QUIET, ...options });
  await run(region, memory, proxy);
}

/** Flips a bit of the byte at a position of one direction, on the connections told. */
function flip(direction: "up" | "down", at: number, hits: (connection: number) => boolean): Harm {
  return (passage) => {
    const index = at - passage.position;
    const here = passage.direction === direction && hits(passage.connection);
    if (here && index >= 0 && index < passage.bytes.length) passage.bytes[index]! ^= 0x10;
    return undefined;
  };
}

/** Listens at a Unix socket until so many came, on whom it hangs up. */
async function hangUp(socket: string, count: number): Promise<void> {
  using listener = Deno.listen({ transport: "unix", path: socket });
  for (let index = 0; index < count; index++) (await listener.accept()).close();
}

async function readBack(backend: Backend, length: number, offset = 0): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await backend.readAt(bytes, offset);
  return bytes;
}

{
  let memory: MemoryBackend, server: TestWireServer;
  testBackend("telemap over TCP", {
    open: async () => {
      memory = openMemory({ size: 3 * SIZE + 321 });
      server = TestWireServer.start({ backend: memory });
      return await connectTelemap(server.url, QUIET);
    },
    reopen: () => connectTelemap(server.url, QUIET),
    remove: async () => {
      await server[Symbol.asyncDispose]();
      await memory.close();
    },
  });
}
{
  let memory: MemoryBackend, server: TestWireServer;
  testBackend("telemap with everything compressed that can be", {
    open: async () => {
      memory = openMemory({ size: SIZE });
      server = TestWireServer.start({ backend: memory, payloadMax: LIMIT.PAYLOAD_MIN });
      return await connectTelemap(server.url, { ...QUIET, compression: "always" });
    },
    remove: async () => {
      await server[Symbol.asyncDispose]();
      await memory.close();
    },
    runs: 10,
  });
}
{
  let directory = "", server: Server;
  const listen = async (options: { readOnly?: boolean } = {}) => {
    const url = `telemap+unix:///?socket=${directory}/socket`;
    server = await serve(`file:${directory}/region?size=${SIZE}`, url, options);
    const region = await connectTelemap(url, QUIET);
    const close = region.close.bind(region);
    region.close = async () => {
      await close();
      await server.close();
    };
    return region;
  };
  testBackend("telemap from a Worker over a Unix socket", {
    open: () => {
      directory = Deno.makeTempDirSync();
      return listen();
    },
    reopen: () => listen(),
    openReadOnly: () => listen({ readOnly: true }),
    remove: () => Deno.removeSync(directory, { recursive: true }),
    runs: 5,
  });
}

Deno.test("large reads and writes are cut at the negotiated limit", async () => {
  await using memory = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend: memory, payloadMax: LIMIT.PAYLOAD_MIN });
  await using region = await connectTelemap(server.url, QUIET);
  const content = pattern(SIZE - 7, 5);
  await region.writeAt(content, 7);
  assertEquals(await readBack(memory, SIZE - 7, 7), content);
  assertEquals(await readBack(region, SIZE - 7, 7), content);
});

Deno.test("a small read does not wait behind large ones", async () => {
  const backend = new DelayedBackend(openMemory({ size: SIZE }));
  await using _ = backend;
  await using server = TestWireServer.start({ backend, inFlightMax: 1 });
  await using region = await connectTelemap(server.url, QUIET);
  const large = [0, 1].map(() => region.readAt(new Uint8Array(1 << 20), 0));
  await backend.held(1);
  const small = region.readAt(new Uint8Array(4096), 8192);
  await backend.held(2);
  assertEquals(backend.release(1).offset, 8192);
  await small;
  backend.release(0);
  await backend.held(1);
  backend.release(0);
  await Promise.all(large);
});

Deno.test("a content that arrives damaged is read once more", async () => {
  const at = SERVER_HELLO + HEADER_BYTES + 100;
  await withHarm(flip("down", at, () => true), async (region, memory) => {
    const content = pattern(4096, 1);
    memory.writeAt(content, 0);
    assertEquals(await readBack(region, 4096), content);
  });
});

Deno.test("a content that always arrives damaged is an error, never shown", async () => {
  const harm: Harm = ({ bytes, position, direction }) => {
    const past = SERVER_HELLO + HEADER_BYTES;
    // Every 4136 bytes there is a header; its bytes are left alone.
    for (let index = 0; index < bytes.length && direction === "down"; index++) {
      const at = position + index - past;
      if (at >= 0 && at % (4096 + HEADER_BYTES) === 17) bytes[index]! ^= 1;
    }
    return undefined;
  };
  await withHarm(harm, async (region, memory) => {
    memory.writeAt(pattern(4096, 1), 0);
    await assertRejects(() => readBack(region, 4096), IntegrityError, "damaged twice");
  });
});

Deno.test("a compressed content that arrives damaged is read once more", async () => {
  const at = SERVER_HELLO + HEADER_BYTES + 50;
  await withHarm(flip("down", at, () => true), async (region, memory) => {
    const content = new Uint8Array(65536).map((_, index) => index % 77);
    memory.writeAt(content, 0);
    assertEquals(await readBack(region, 65536), content);
  }, { compression: "always" });
});

Deno.test("on a slow link, contents that shrink are compressed both ways", async () => {
  const moved = { up: 0, down: 0 };
  // 10 MB/s
  const harm: Harm = ({ bytes, direction }) => {
    moved[direction] += bytes.length;
    return new Promise((resolve) => setTimeout(resolve, bytes.length / 10_000));
  };
  const content = new Uint8Array(128 << 10).map((_, index) => index % 101);
  /** Moves contents until several in a row are compressed: one may be so as a mere try. */
  const untilCompressed = async (direction: "up" | "down", move: () => Promise<void>) => {
    for (let inRow = 0, count = 0; inRow < 5; count++) {
      assert(count < 200, `The way ${direction} is never compressed`);
      const before = moved[direction];
      await move();
      inRow = moved[direction] - before < content.length / 2 ? inRow + 1 : 0;
    }
  };
  await withHarm(harm, async (region) => {
    await untilCompressed("up", async () => await region.writeAt(content, 0));
    await untilCompressed("down", async () => {
      assertEquals(await readBack(region, content.length), content);
    });
  });
});

Deno.test("a content that arrives damaged at the server is sent once more", async () => {
  const at = CLIENT_HELLO + HEADER_BYTES + 100;
  await withHarm(flip("up", at, () => true), async (region, memory) => {
    const content = pattern(4096, 2);
    await region.writeAt(content, 0);
    assertEquals(await readBack(memory, 4096), content);
  });
});

Deno.test("a damaged header ends the connection, and what was asked is asked again", async () => {
  for (const direction of ["up", "down"] as const) {
    const hello = direction === "up" ? CLIENT_HELLO : SERVER_HELLO;
    // Which bits are seen is a matter of the codec; here one of each field will do.
    for (const byte of [0, 4, 8, 12, 16, 24, 32, 36]) {
      const harm = flip(direction, hello + byte, (connection) => connection === 0);
      await withHarm(harm, async (region, memory) => {
        const content = pattern(4096, byte);
        await region.writeAt(content, 0);
        assertEquals(await readBack(memory, 4096), content);
      });
    }
  }
});

Deno.test("connections that are cut anywhere change nothing but the time it takes", async () => {
  const cuts = fc.array(fc.integer({ min: 1, max: 400_000 }), { minLength: 1, maxLength: 6 });
  const seeds = fc.nat(1000);
  const property = fc.asyncProperty(cuts, seeds, async (positions, seed) => {
    // Connection i is cut after positions[i] bytes of either direction; those behind the last hold.
    const harm: Harm = ({ bytes, position, connection }) => {
      const left = (positions[connection] ?? Infinity) - position;
      return left <= bytes.length ? Math.max(left, 0) : undefined;
    };
    await using memory = openMemory({ size: SIZE });
    await using server = TestWireServer.start({ backend: memory });
    await using proxy = HarmfulProxy.start(server.url, harm);
    const connect = () => connectTelemap(proxy.url, QUIET).catch(() => undefined);
    let connected = await connect();
    // Only a first connection may fail: nothing was promised yet.
    while (connected === undefined) connected = await connect();
    await using region = connected;
    const model = pattern(SIZE, seed);
    const pieces = [1, 4096, 65536, 65537, 300_000, 1_500_000];
    const writes: Promise<void>[] = [];
    for (let at = 0, turn = seed; at < SIZE; turn++) {
      const piece = model.subarray(at, at + pieces[turn % pieces.length]!);
      writes.push(Promise.resolve(region.writeAt(piece, at)));
      at += piece.length;
    }
    await Promise.all(writes);
    await region.flush();
    assertEquals(await readBack(memory, SIZE), model);
    assertEquals(await readBack(region, SIZE), model);
  });
  await fc.assert(property, { numRuns: 12 });
});

Deno.test("what was in flight when the server was killed is done by the one that follows", async () => {
  const directory = await Deno.makeTempDir();
  const url = `telemap+unix:///?socket=${directory}/socket`;
  const backend = `file:${directory}/region?size=${SIZE}`;
  const start = async () => {
    const server = new TelemapProcess(["serve", backend, "--listen", url, "--json"]);
    await server.next();
    return server;
  };
  let server = await start();
  try {
    await using region = await connectTelemap(url, QUIET);
    const model = pattern(SIZE, 3);
    for (const answers of [0, 1, 40]) {
      const writes: Promise<void>[] = [];
      for (let at = 0; at < SIZE; at += 50_000) {
        writes.push(Promise.resolve(region.writeAt(model.subarray(at, at + 50_000), at)));
      }
      await writes[answers - 1];
      await server[Symbol.asyncDispose]();
      server = await start();
      await Promise.all(writes);
      assertEquals(await readBack(region, SIZE), model);
      // The kernel kept what the server had written: there is nothing to be afraid of.
      await region.flush();
      model.reverse();
    }
  } finally {
    await server[Symbol.asyncDispose]();
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a flush says once that a server which forgets was started anew", async () => {
  await using memory = openMemory({ size: SIZE });
  const directory = await Deno.makeTempDir();
  const socket = `${directory}/socket`;
  let server = TestWireServer.start({ backend: memory, socket });
  const restart = async (instance: number) => {
    await server[Symbol.asyncDispose]();
    server = TestWireServer.start({ backend: memory, socket, instance: pattern(16, instance) });
  };
  try {
    await using region = await connectTelemap(server.url, QUIET);
    await region.writeAt(new Uint8Array([1]), 0);
    await region.flush();
    await restart(2);
    await region.flush();
    await region.writeAt(new Uint8Array([1]), 0);
    await restart(3);
    await assertRejects(() => region.flush(), IntegrityError, "started anew");
    await region.flush();
    await region.writeAt(new Uint8Array([1]), 0);
    await region.flush();
    await region.writeAt(new Uint8Array([1]), 0);
    await restart(3);
    await region.flush();
  } finally {
    await server[Symbol.asyncDispose]();
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("another region under the same address is refused for good", async () => {
  await using memory = openMemory({ size: SIZE });
  const directory = await Deno.makeTempDir();
  const socket = `${directory}/socket`;
  const first = TestWireServer.start({ backend: memory, socket });
  await using region = await connectTelemap(first.url, QUIET);
  await region.writeAt(new Uint8Array([1]), 0);
  await first[Symbol.asyncDispose]();
  await using _second = TestWireServer.start({ backend: memory, socket, region: pattern(16, 7) });
  await assertRejects(() => readBack(region, 1), IntegrityError, "another region");
  await assertRejects(() => readBack(region, 1), IntegrityError, "another region");
  await Deno.remove(directory, { recursive: true });
});

Deno.test("a server that falls silent is left, and what it owed is asked again", async () => {
  const { promise: forever, resolve: end } = Promise.withResolvers<void>();
  const harm: Harm = ({ connection, direction, position }) =>
    connection === 0 && direction === "down" && position >= SERVER_HELLO ? forever : undefined;
  const lines: string[] = [];
  await withHarm(harm, async (region) => {
    await region.writeAt(new Uint8Array([5]), 0);
    assertEquals(await readBack(region, 1), new Uint8Array([5]));
    end();
  }, { requestTimeout: 200, log: (line) => lines.push(line) });
  assertEquals(lines.length, 2);
  assertStringIncludes(lines[0]!, "did not answer within 200 ms");
  assertStringIncludes(lines[1]!, "again");
});

Deno.test("a slow link that moves at all is not taken for a dead one", async () => {
  const harm: Harm = ({ direction, position }) =>
    direction === "down" && position > SERVER_HELLO
      ? new Promise((resolve) => setTimeout(resolve, 25))
      : undefined;
  const lines: string[] = [];
  await withHarm(harm, async (region, memory) => {
    const content = pattern(1 << 20, 4);
    memory.writeAt(content, 0);
    assertEquals(await readBack(region, 1 << 20), content);
  }, { requestTimeout: 300, log: (line) => lines.push(line) });
  assertEquals(lines, []);
});

Deno.test("a server that passes a request over is left", async () => {
  const backend = new DelayedBackend(openMemory({ size: SIZE }));
  await using _ = backend;
  await using server = TestWireServer.start({ backend });
  await using region = await connectTelemap(server.url, { ...QUIET, requestTimeout: 200 });
  const read = region.readAt(new Uint8Array(1), 0);
  await backend.held(1);
  // Pings are answered all the time, the read is not; on the next connection it is.
  await backend.held(2).finally(() => backend.release(1));
  await read;
  backend.release(0);
});

Deno.test("roundTrip() is measured over a connection that is lost", () => {
  const harm: Harm = ({ connection, position, direction }) =>
    connection === 0 && direction === "up" && position > 0 ? 0 : undefined;
  return withHarm(harm, async (region) => {
    assert(await region.roundTrip() > 0);
  });
});

Deno.test("a server that refuses its clients of before is named in the log", async () => {
  await using memory = openMemory({ size: SIZE });
  const directory = await Deno.makeTempDir();
  const socket = `${directory}/socket`;
  const { promise: told, resolve: tell } = Promise.withResolvers<string>();
  const first = TestWireServer.start({ backend: memory, socket });
  const log = (line: string) => line.includes("refuses") && tell(line);
  await using _region = await connectTelemap(first.url, { log });
  await first[Symbol.asyncDispose]();
  await using _second = TestWireServer.start({ backend: memory, socket, token: "sesame" });
  assertStringIncludes(await told, "A token is needed");
  await Deno.remove(directory, { recursive: true });
});

Deno.test("with onLoss error, requests fail when their time is over", async () => {
  await using memory = openMemory({ size: SIZE });
  const server = TestWireServer.start({ backend: memory });
  await using region = await connectTelemap(server.url, {
    ...{ ...QUIET, onLoss: "error", requestTimeout: 150 },
  });
  assertEquals(await readBack(region, 1), new Uint8Array(1));
  await server[Symbol.asyncDispose]();
  await Promise.all([
    assertRejects(() => readBack(region, 1), DeadlineError, "within 150 ms"),
    assertRejects(() => readBack(region, 100_000), DeadlineError, "within 150 ms"),
    assertRejects(() => region.flush(), DeadlineError, "is the server running?"),
  ]);
});

Deno.test("a write that was given up is never carried out after a later one", async () => {
  const backend = new DelayedBackend(openMemory({ size: SIZE }));
  await using _ = backend;
  await using server = TestWireServer.start({ backend });
  await using region = await connectTelemap(server.url, {
    ...{ ...QUIET, onLoss: "error", requestTimeout: 500 },
  });
  const large = new Uint8Array(100_000).fill(1);
  const given = assertRejects(async () => await region.writeAt(large, 0), DeadlineError);
  await backend.held(1);
  await given;
  // The large write still hangs in the server: the small one, on the other lane, waits for it.
  const later = Promise.resolve(region.writeAt(new Uint8Array([2]), 0));
  while (server.accepted < 3) await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(backend.count, 1);
  backend.release(0);
  await backend.held(1);
  backend.release(0);
  await later;
  const read = readBack(region, 2);
  await backend.held(1);
  backend.release(0);
  assertEquals(await read, new Uint8Array([2, 1]));
});

Deno.test("connecting fails at once, in words, where there is nothing to wait for", async () => {
  await using memory = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend: memory, token: "sesame", wrongTokenMs: 20 });
  const refused = await assertRejects(() => connectTelemap(server.url), RemoteError, "token");
  assertEquals(refused.code, "EACCES");
  await assertRejects(() => connectTelemap(server.url, { token: "x" }), RemoteError, "wrong");
  const missing = await assertRejects(
    () => connectTelemap(`${server.url}/none`, { token: "sesame" }),
    RemoteError,
    'no export named "none"',
  );
  assertEquals(missing.code, "ENOENT");
  await assertRejects(() => connectTelemap("telemap://127.0.0.1:1"), ConnectionError, "running?");
  await assertRejects(() => connectTelemap("nbd://127.0.0.1"), UsageError, "telemap://HOST");
  await assertRejects(() => connectTelemap("telemaps://127.0.0.1"), UnsupportedError, "TLS");
});

Deno.test("the token may come from a file, by option or in the URL", async () => {
  await using memory = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend: memory, token: "sesame" });
  const tokenFile = await Deno.makeTempFile();
  await Deno.writeTextFile(tokenFile, "sesame\n");
  await using _option = await connectTelemap(server.url, { tokenFile });
  await using _url = await connectTelemap(`${server.url}/?token-file=${tokenFile}`);
  await Deno.remove(tokenFile);
});

Deno.test("a server that speaks something else is told apart", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepting = listener.accept();
  const connecting = connectTelemap(`telemap://127.0.0.1:${listener.addr.port}`);
  using conn = await accepting;
  await conn.write(new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n"));
  await assertRejects(() => connecting, ProtocolError, "does not speak");
});

Deno.test("a server that does not answer the hello is not waited for", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const url = `telemap://127.0.0.1:${listener.addr.port}`;
  await assertRejects(
    () => connectTelemap(url, { connectTimeout: 100 }),
    DeadlineError,
    "did not answer the hello within 100 ms",
  );
});

Deno.test("both connections are made at once, and a refusal of one ends the other", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const connecting = connectTelemap(`telemap://127.0.0.1:${listener.addr.port}`);
  const connected = assertRejects(() => connecting, ProtocolError, "does not speak");
  // Neither is answered before both are there.
  using first = await listener.accept();
  using second = await listener.accept();
  await first.write(new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n"));
  await connected;
  const { length } = await bytesUntilEnd(second);
  assert(length > 0, "the second one said hello");
});

Deno.test("close() returns at once in every state, and fails what has no answer", async () => {
  const backend = new DelayedBackend(openMemory({ size: SIZE }));
  await using _ = backend;
  const server = TestWireServer.start({ backend });
  const waiting = await connectTelemap(server.url, QUIET);
  const reads = [1, 100_000, SIZE].map((length) =>
    assertRejects(async () => await waiting.readAt(new Uint8Array(length), 0), ClosedError)
  );
  await backend.held(2);
  const lost = await connectTelemap(server.url, QUIET);
  const start = performance.now();
  await waiting.close();
  await Promise.all(reads);
  await waiting.close();
  await server[Symbol.asyncDispose]();
  const read = assertRejects(() => readBack(lost, 1), ClosedError);
  await lost.close();
  await read;
  assert(performance.now() - start < 1000);
  while (backend.count > 0) backend.release(0);
});

Deno.test("close() does not wait for the next attempt to connect", async () => {
  await using memory = openMemory({ size: SIZE });
  const directory = await Deno.makeTempDir();
  const socket = `${directory}/socket`;
  const server = TestWireServer.start({ backend: memory, socket });
  const region = await connectTelemap(server.url, QUIET);
  await server[Symbol.asyncDispose]();
  // By then the attempts of a lane are over 160 ms apart.
  await hangUp(socket, 12);
  const start = performance.now();
  await region.close();
  assert(performance.now() - start < 80);
  await Deno.remove(directory, { recursive: true });
});

Deno.test("close() returns at once while it connects again", async () => {
  await using memory = openMemory({ size: SIZE });
  const { promise: forever, resolve: end } = Promise.withResolvers<void>();
  const { promise: again, resolve: reached } = Promise.withResolvers<void>();
  let first = true;
  const harm: Harm = ({ position, direction }) => {
    if (first) return undefined;
    if (direction === "up" && position === 0) reached();
    return forever;
  };
  const server = TestWireServer.start({ backend: memory });
  await using proxy = HarmfulProxy.start(server.url, harm);
  const region = await connectTelemap(proxy.url, QUIET);
  await region.readAt(new Uint8Array(100_000), 0);
  first = false;
  server.drop();
  await again;
  const start = performance.now();
  await region.close();
  assert(performance.now() - start < 500);
  end();
  await server[Symbol.asyncDispose]();
});

Deno.test("close() leaves a connection that is made again at that very moment", async () => {
  await using memory = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend: memory });
  const closed = Promise.withResolvers<void>();
  const region = await connectTelemap(server.url, {
    log: (line) => {
      // Once it is made, and before the lane has it.
      if (line.includes("again")) queueMicrotask(() => region.close().then(closed.resolve));
    },
  });
  server.drop();
  await inTime(closed.promise);
});

Deno.test("a loss and its end are one line each, whatever is tried in between", async () => {
  await using memory = openMemory({ size: SIZE });
  const directory = await Deno.makeTempDir();
  const socket = `${directory}/socket`;
  const lines: string[] = [];
  const first = TestWireServer.start({ backend: memory, socket });
  await using region = await connectTelemap(first.url, { log: (line) => lines.push(line) });
  await region.readAt(new Uint8Array(100_000), 0);
  await first[Symbol.asyncDispose]();
  await hangUp(socket, 6);
  await using _second = TestWireServer.start({ backend: memory, socket });
  await Promise.all([readBack(region, 1), readBack(region, 100_000)]);
  assertEquals(lines.length, 2);
  assertStringIncludes(lines[0]!, `Lost telemap+unix:///?socket=${socket}`);
  assertStringIncludes(lines[1]!, "again");
  await Deno.remove(directory, { recursive: true });
});

async function bytesUntilEnd(conn: Deno.Conn): Promise<Uint8Array> {
  return new Uint8Array(await new Response(conn.readable).arrayBuffer());
}
