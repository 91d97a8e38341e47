/** NBD's transmission phase of the server, byte by byte, on backends that answer at once or later. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { concat } from "@std/bytes";
import { openLibc } from "../../ffi/libc.ts";
import type { Awaitable, Backend, Extent } from "../../lib/backend/backend.ts";
import { ReadOnlyError } from "../../lib/backend/errors.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { assertBytes, pattern } from "../backend_model.ts";
import { BlockBackend } from "../block_backend.ts";
import { RawClient, type Request, requestBytes, utf8, viewOf } from "./raw_client.ts";
import { SERVERS, type Wire } from "./wire.ts";

openLibc();

const READ = 0, WRITE = 1, DISC = 2, FLUSH = 3, TRIM = 4, CACHE = 5, WRITE_ZEROES = 6;
const BLOCK_STATUS = 7;
const FUA = 1, NO_HOLE = 2, DF = 4, REQ_ONE = 8, FAST_ZERO = 16;
const EPERM = 1, EIO = 5, EINVAL = 22, ENOSPC = 28, ENOTSUP = 95;
const MIB = 1 << 20;
const SIZE = 3 * MIB + 77;

const BACKENDS: Record<string, () => Backend> = {
  memory: () => openMemory({ size: SIZE }),
  "a store that answers later": () => new BlockBackend({ size: SIZE, blockSize: 1, seed: 5 }),
};

interface Served {
  backend: Backend;
  connect(): Wire;
}

/** Registers a test for each way to connect and each kind of backend. */
function test(what: string, run: (served: Served) => Promise<void>): void {
  for (const [name, open] of Object.entries(BACKENDS)) {
    testOn(`${name}: ${what}`, open, run);
  }
}

/** Registers a test for each way to connect. */
function testOn(what: string, open: () => Backend, run: (served: Served) => Promise<void>): void {
  for (const [kind, start] of Object.entries(SERVERS)) {
    Deno.test(`NBD over ${kind} on ${what}`, async () => {
      await using backend = open();
      const offered = { name: "", description: "", readOnly: false, backend };
      const readOnly = { ...offered, name: "read-only", readOnly: true };
      await using server = start({ exports: () => [offered, readOnly] });
      await run({ backend, connect: () => server.connect() });
    });
  }
}

/** A backend with everything but what is told left out or harmless. */
function fakeBackend(parts: Partial<Backend> & { size: number }): Backend {
  return {
    blockSize: 1,
    durable: false,
    readOnly: false,
    readAt: (buffer) => void buffer.fill(0),
    writeAt: () => {},
    flush: () => {},
    close: () => {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
    ...parts,
  };
}

test("what is written is read, at any alignment", async ({ connect }) => {
  const client = await RawClient.go(connect());
  const ranges = [[0, 1], [511, 2], [4095, 4098], [1, MIB + 13], [SIZE - 1, 1], [0, SIZE]] as const;
  for (const [offset, length] of ranges) {
    const payload = pattern(length, length);
    assertEquals(await client.error({ command: WRITE, offset: BigInt(offset), payload }), 0);
    assertBytes(await client.read(offset, length), payload, `${length} bytes at ${offset}`);
  }
});

/** What a bad request is answered with, by each row; all of them leave the stream in step. */
const BAD: [string, Request, number][] = [
  ["READ beyond the end", { command: READ, offset: BigInt(SIZE - 1), length: 2 }, EINVAL],
  ["READ far beyond the end", { command: READ, offset: 1n << 63n, length: 1 }, EINVAL],
  ["READ that wraps 2^64", { command: READ, offset: (1n << 64n) - 512n, length: 1024 }, EINVAL],
  ["READ over the largest payload", { command: READ, length: (32 << 20) + 1 }, EINVAL],
  ["WRITE beyond the end", {
    command: WRITE,
    offset: BigInt(SIZE - 1),
    payload: new Uint8Array(2),
  }, ENOSPC],
  ["WRITE that wraps 2^64", {
    command: WRITE,
    offset: (1n << 64n) - 512n,
    payload: new Uint8Array(1024),
  }, ENOSPC],
  ["WRITE over the largest payload", {
    command: WRITE,
    payload: new Uint8Array((32 << 20) + 1),
  }, EINVAL],
  ["WRITE of 64 MiB", { command: WRITE, payload: new Uint8Array(64 << 20) }, EINVAL],
  ["WRITE with an unknown flag", {
    command: WRITE,
    flags: 0x80,
    payload: new Uint8Array(4097),
  }, EINVAL],
  ["WRITE with DF", { command: WRITE, flags: DF, payload: new Uint8Array(100) }, EINVAL],
  ["ZEROES beyond the end", { command: WRITE_ZEROES, offset: 1n, length: SIZE }, ENOSPC],
  ["TRIM beyond the end", { command: TRIM, offset: 1n, length: SIZE }, EINVAL],
  ["CACHE beyond the end", { command: CACHE, offset: 1n, length: SIZE }, EINVAL],
  ["BLOCK_STATUS beyond the end", { command: BLOCK_STATUS, offset: 1n, length: SIZE }, EINVAL],
  ["BLOCK_STATUS of nothing", { command: BLOCK_STATUS }, EINVAL],
  ["FLUSH with an offset", { command: FLUSH, offset: 1n }, EINVAL],
  ["FLUSH with a length", { command: FLUSH, length: 1 }, EINVAL],
  ["an unknown command", { command: 8, offset: 3n, length: 4096 }, EINVAL],
  ["a command of 2^16 - 1", { command: 0xffff, flags: 0xffff, length: 0xffff_ffff }, EINVAL],
  ["READ with NO_HOLE", { command: READ, flags: NO_HOLE, length: 512 }, EINVAL],
  ["READ with REQ_ONE", { command: READ, flags: REQ_ONE, length: 512 }, EINVAL],
  ["TRIM with FAST_ZERO", { command: TRIM, flags: FAST_ZERO, length: 512 }, EINVAL],
  ["CACHE with an unknown flag", { command: CACHE, flags: 0x100, length: 512 }, EINVAL],
];

test("bad requests are answered with their error, and the next one is served", async (served) => {
  const client = await RawClient.go(served.connect());
  await client.error({ command: WRITE, payload: pattern(512, 1) });
  for (const [what, request, error] of BAD) {
    assertEquals(await client.error({ cookie: 1n << 63n, ...request }), error, what);
    assertBytes(await client.read(0, 512), pattern(512, 1), what);
  }
  assertEquals(await client.error({ command: READ, flags: DF, length: 9 }), EINVAL, "DF unoffered");
  assertEquals(await client.error({ command: BLOCK_STATUS, length: 9 }), EINVAL, "No context");
});

test("a refused WRITE is answered when all of it came, and no sooner", async ({ connect }) => {
  const client = await RawClient.go(connect());
  const before = client.wire.receivedBytes;
  const bytes = requestBytes({
    command: WRITE,
    payload: new Uint8Array((32 << 20) + 1),
    cookie: 4n,
  });
  client.wire.send(bytes.subarray(0, -1));
  await until(() => client.wire.unsentBytes === 0);
  assertEquals(client.wire.receivedBytes, before);
  client.wire.send(bytes.subarray(-1));
  assertEquals(await client.simple(), { error: EINVAL, cookie: 4n });
  assertEquals(await client.read(0, 3), new Uint8Array(3));
});

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

test("structured, bad reads are chunks and other errors as before", async ({ connect }) => {
  const client = await RawClient.go(connect(), { structured: true });
  for (const [what, request, error] of BAD) {
    client.send({ ...request, cookie: 77n });
    if (request.command === READ || request.command === BLOCK_STATUS) {
      const { payload, ...chunk } = await client.chunk();
      assertEquals(chunk, { flags: 1, type: 0x8001, cookie: 77n }, what);
      assertEquals(viewOf(payload).getUint32(0), error, what);
      assertEquals(payload.length, 6 + viewOf(payload).getUint16(4), what);
    } else {
      assertEquals(await client.simple(), { error, cookie: 77n }, what);
    }
    assertEquals(await client.readStructured(0, 5), new Uint8Array(5));
  }
});

test("reads are one structured chunk where that was negotiated", async ({ connect }) => {
  const client = await RawClient.go(connect(), { structured: true });
  const payload = pattern(MIB, 3);
  assertEquals(await client.error({ command: WRITE, offset: 5n, payload }), 0);
  assertBytes(await client.readStructured(5, MIB), payload, "The chunk");
  client.send({ command: READ, flags: DF | FUA, length: 65536, cookie: 9n });
  const { payload: part, ...chunk } = await client.chunk();
  assertEquals(chunk, { flags: 1, type: 1, cookie: 9n });
  assertEquals(part.length, 8 + 65536);
});

test("requests of no length succeed", async ({ connect }) => {
  const simple = await RawClient.go(connect());
  for (const command of [READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES]) {
    assertEquals(await simple.error({ command, cookie: 3n }), 0);
    if (command === FLUSH) continue;
    assertEquals(await simple.error({ command, offset: BigInt(SIZE), cookie: 3n }), 0);
  }
  const structured = await RawClient.go(connect(), { structured: true });
  structured.send({ command: READ, cookie: 4n });
  const chunk = await structured.chunk();
  assertEquals(chunk, { flags: 1, type: 0, cookie: 4n, payload: new Uint8Array() });
});

test("a read-only export is read and never changed", async ({ backend, connect }) => {
  await backend.writeAt(pattern(4096, 1), 0);
  const client = await RawClient.go(connect(), { name: "read-only" });
  const changes: Request[] = [
    { command: WRITE, payload: new Uint8Array(512) },
    { command: WRITE, offset: BigInt(SIZE), payload: new Uint8Array(512) },
    { command: WRITE, payload: new Uint8Array((32 << 20) + 1) },
    { command: TRIM, length: 4096 },
    { command: WRITE_ZEROES, length: 4096 },
    { command: WRITE_ZEROES, flags: FAST_ZERO, length: 4096 },
  ];
  for (const request of changes) assertEquals(await client.error(request), EPERM);
  assertEquals(await client.error({ command: FLUSH }), 0);
  assertBytes(await client.read(0, 4096), pattern(4096, 1), "The export");
});

test("WRITE_ZEROES and TRIM zero", async ({ connect }) => {
  const client = await RawClient.go(connect());
  const expected = pattern(4096, 1);
  await client.error({ command: WRITE, payload: expected });
  const kinds = [[WRITE_ZEROES, 0], [WRITE_ZEROES, NO_HOLE | FUA], [WRITE_ZEROES, FAST_ZERO]];
  for (const [command, flags] of [...kinds, [TRIM, FUA]] as [number, number][]) {
    const from = 100 * (command + flags), to = from + 50;
    assertEquals(await client.error({ command, flags, offset: BigInt(from), length: 50 }), 0);
    expected.fill(0, from, to);
    assertBytes(await client.read(0, 4096), expected, `Command ${command}, flags ${flags}`);
  }
});

test("BLOCK_STATUS tells holes from data", async ({ connect }) => {
  const client = await RawClient.go(connect(), { structured: true });
  await client.error({ command: WRITE, offset: BigInt(MIB), payload: pattern(65536, 1) });
  const status = async (offset: number, length: number, flags = 0) => {
    client.send({ command: BLOCK_STATUS, flags, offset: BigInt(offset), length, cookie: 6n });
    const { payload, ...chunk } = await client.chunk();
    assertEquals(chunk, { flags: 1, type: 5, cookie: 6n });
    const view = viewOf(payload);
    assert(view.getUint32(0) !== 0);
    return Array.from(
      { length: (payload.length - 4) / 8 },
      (_, index) => [view.getUint32(4 + 8 * index), view.getUint32(8 + 8 * index)],
    );
  };
  assertEquals(await status(0, SIZE), [[MIB, 3], [65536, 0], [SIZE - MIB - 65536, 3]]);
  assertEquals(await status(0, SIZE, REQ_ONE), [[MIB, 3]]);
  assertEquals(await status(5, 10, REQ_ONE | FUA), [[10, 3]]);
  assertEquals(await status(MIB + 5, 10), [[10, 0]]);
  assertEquals(await status(SIZE - 1, 1), [[1, 3]]);
});

test("ten thousand requests at once are all answered", async ({ connect }) => {
  const client = await RawClient.go(connect());
  const count = 10_000;
  const requests = Array.from({ length: count }, (_, index) => {
    const kinds: Request[] = [
      { command: READ, offset: BigInt(index), length: index % 64 },
      { command: WRITE, offset: BigInt(MIB + index), payload: new Uint8Array([index]) },
      { command: FLUSH },
      { command: CACHE, length: index },
    ];
    return requestBytes({ ...kinds[index % 4]!, cookie: BigInt(index) });
  });
  client.wire.send(concat(requests));
  const answered = new Set<number>();
  while (answered.size < count) {
    const { error, cookie } = await client.simple();
    assertEquals(error, 0);
    const index = Number(cookie);
    assert(!answered.has(index), "A cookie is answered once");
    answered.add(index);
    if (index % 4 === 0) {
      assertEquals(await client.wire.take(index % 64), new Uint8Array(index % 64));
    }
  }
  for (let index = 1; index < count; index += 997 * 4) {
    assertEquals(await client.read(MIB + index, 1), new Uint8Array([index]));
  }
});

test("requests with one cookie are each answered", async ({ connect }) => {
  const client = await RawClient.go(connect());
  const request = requestBytes({ command: FLUSH, cookie: 5n });
  client.wire.send(concat(Array(500).fill(request)));
  for (let index = 0; index < 500; index++) {
    assertEquals(await client.simple(), { error: 0, cookie: 5n });
  }
});

test("one byte at a time, requests are the same", async ({ connect }) => {
  const client = await RawClient.go(connect());
  const payload = pattern(33, 1);
  const bytes = concat([
    requestBytes({ command: WRITE, offset: 7n, payload }),
    requestBytes({ command: WRITE, offset: BigInt(SIZE), payload }),
    requestBytes({ command: FLUSH }),
  ]);
  for (const byte of bytes) client.wire.send(new Uint8Array([byte]));
  const errors = [await client.simple(), await client.simple(), await client.simple()];
  assertEquals(errors.map(({ error }) => error).sort(), [0, 0, ENOSPC]);
  assertEquals(await client.read(7, 33), payload);
});

test("a WRITE that is cut short is not applied", async ({ backend, connect }) => {
  for (const missing of [1, 100, 4096, 4100]) {
    const client = await RawClient.go(connect());
    const bytes = requestBytes({ command: WRITE, payload: pattern(4096, 1) });
    client.wire.send(bytes.subarray(0, bytes.length - missing));
    client.wire.hangUp();
  }
  const other = await RawClient.go(connect());
  assertEquals(await other.read(0, 4096), new Uint8Array(4096));
  await backend.flush();
});

test("a WRITE of more than 64 MiB is refused and closes the connection", async ({ connect }) => {
  const client = await RawClient.go(connect());
  client.send({ command: WRITE, length: (64 << 20) + 1, cookie: 3n });
  assertEquals(await client.simple(), { error: EINVAL, cookie: 3n });
  await client.wire.ended();
});

test("a bad magic number closes the connection after what was asked before", async (served) => {
  const client = await RawClient.go(served.connect());
  client.wire.send(concat([
    requestBytes({ command: READ, length: 3, cookie: 1n }),
    requestBytes({ magic: 0x25609514, command: WRITE, payload: new Uint8Array(9) }),
    requestBytes({ command: WRITE, payload: utf8("never") }),
  ]));
  assertEquals((await client.wire.takeAll()).length, 16 + 3);
  const other = await RawClient.go(served.connect());
  assertEquals(await other.read(0, 5), new Uint8Array(5));
});

test("DISC is not answered, but all before it is", async ({ connect }) => {
  for (const flags of [0, FUA, 0xffff]) {
    const client = await RawClient.go(connect());
    client.wire.send(concat([
      ...Array(20).fill(requestBytes({ command: READ, length: 4 })),
      requestBytes({ command: DISC, flags, cookie: 9n }),
      requestBytes({ command: WRITE, payload: utf8("never") }),
    ]));
    assertEquals((await client.wire.takeAll()).length, 20 * 20);
  }
  const other = await RawClient.go(connect());
  assertEquals(await other.read(0, 5), new Uint8Array(5));
});

test("hanging up with requests in flight hurts nobody else", async ({ connect }) => {
  const other = await RawClient.go(connect());
  for (let round = 0; round < 20; round++) {
    const client = await RawClient.go(connect());
    for (let index = 0; index < 50; index++) {
      client.send({ command: READ, length: 100_000 });
      client.send({ command: WRITE, offset: BigInt(MIB), payload: new Uint8Array(1000) });
    }
    if (round % 2 === 0) await client.wire.take(1000);
    client.wire.hangUp();
  }
  assertEquals(await other.read(0, 5), new Uint8Array(5));
});

/** A backend that notes what it is asked for. */
function recorder(log: string[], later: boolean): Backend {
  const note = (what: string): Awaitable<void> => {
    if (!later) return void log.push(what);
    return Promise.resolve().then(() => void log.push(what));
  };
  return fakeBackend({
    size: 2 ** 33,
    writesAtOnce: !later,
    writeAt: (buffer, offset) => note(`write ${buffer.length} at ${offset}`),
    zero: (offset, length, options) =>
      note(`zero ${length} at ${offset}${options?.allocate ? ", allocated" : ""}`),
    discard: (offset, length) => note(`discard ${length} at ${offset}`),
    flush: () => note("flush"),
  });
}

for (const later of [false, true]) {
  const log: string[] = [];
  testOn(
    `a recorder that answers ${later ? "later" : "at once"}: FUA flushes after the change`,
    () => recorder(log, later),
    async ({ connect }) => {
      log.length = 0;
      const client = await RawClient.go(connect());
      const requests: Request[] = [
        { command: WRITE, flags: FUA, offset: 9n, payload: new Uint8Array(3) },
        { command: WRITE, offset: 8n, payload: new Uint8Array(3) },
        { command: FLUSH },
        { command: FLUSH, flags: FUA },
        { command: WRITE_ZEROES, flags: FUA | NO_HOLE, offset: 1n, length: 0xffff_ffff },
        { command: WRITE_ZEROES, flags: FAST_ZERO, length: 7 },
        { command: TRIM, flags: FUA, offset: 2n ** 32n + 1n, length: 0xffff_ffff },
        { command: TRIM, length: 6 },
        { command: READ, flags: FUA, length: 0 },
        { command: CACHE, flags: FUA, length: 6 },
      ];
      for (const request of requests) assertEquals(await client.error(request), 0);
      assertEquals(log, [
        "write 3 at 9",
        "flush",
        "write 3 at 8",
        "flush",
        "flush",
        "zero 4294967295 at 1, allocated",
        "flush",
        "zero 7 at 0",
        "discard 4294967295 at 4294967297",
        "flush",
        "discard 6 at 0",
      ]);
    },
  );
}

const bare = () => {
  const store = openMemory({ size: SIZE });
  return fakeBackend({
    size: SIZE,
    readAt: (buffer, offset) => store.readAt(buffer, offset),
    writeAt: (buffer, offset) => store.writeAt(buffer, offset),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  });
};

testOn("a store that only reads and writes: the rest is made of that", bare, async (served) => {
  const client = await RawClient.go(served.connect(), { structured: true });
  await client.error({ command: WRITE, payload: pattern(SIZE, 1) });
  const fast = { command: WRITE_ZEROES, flags: FAST_ZERO, length: 2 * MIB };
  assertEquals(await client.error(fast), ENOTSUP);
  assertBytes(await client.readStructured(0, SIZE), pattern(SIZE, 1), "Nothing changed");
  const zeroes = { command: WRITE_ZEROES, flags: NO_HOLE, offset: 1n, length: 2 * MIB };
  assertEquals(await client.error(zeroes), 0);
  const expected = pattern(SIZE, 1).fill(0, 1, 1 + 2 * MIB);
  assertBytes(await client.readStructured(0, SIZE), expected, "Zeroes");
  assertEquals(await client.error({ command: TRIM, length: SIZE }), 0);
  assertBytes(await client.readStructured(0, SIZE), expected, "TRIM keeps what it cannot drop");
  client.send({ command: BLOCK_STATUS, length: SIZE });
  const { payload } = await client.chunk();
  assertEquals([viewOf(payload).getUint32(4), viewOf(payload).getUint32(8)], [SIZE, 0]);
});

for (const later of [false, true]) {
  const fail = (error: Error): Awaitable<void> => {
    if (!later) throw error;
    return Promise.reject(error);
  };
  const full = Object.assign(new Error("full"), { code: "ENOSPC" });
  const broken = () =>
    fakeBackend({
      size: SIZE,
      writesAtOnce: !later,
      readAt: (buffer, offset) => offset === 0 ? void buffer.fill(1) : fail(new Error("lost")),
      writeAt: () => fail(full),
      zero: () => fail(new ReadOnlyError()),
      discard: () => fail(new Error("no")),
      flush: () => fail(new Error("no")),
      extents: () => fail(new Error("no")) as Promise<never>,
    });
  testOn(
    `a store that fails ${later ? "later" : "at once"}: errors are answered, nothing else`,
    broken,
    async ({ connect }) => {
      for (const structured of [false, true]) {
        const client = await RawClient.go(connect(), { structured });
        const rows: [Request, number][] = [
          [{ command: WRITE, payload: new Uint8Array(9) }, ENOSPC],
          [{ command: WRITE, flags: FUA, payload: new Uint8Array(9) }, ENOSPC],
          [{ command: WRITE_ZEROES, length: 9 }, EPERM],
          [{ command: WRITE_ZEROES, flags: FAST_ZERO, length: 9 }, EPERM],
          [{ command: TRIM, length: 9 }, EIO],
          [{ command: TRIM, flags: FUA, length: 9 }, EIO],
          [{ command: FLUSH }, EIO],
        ];
        for (const [request, error] of rows) assertEquals(await client.error(request), error);
        const request = { command: READ, offset: 1n, length: 100 };
        if (!structured) {
          assertEquals(await client.error(request), EIO);
          assertEquals(await client.read(0, 3), new Uint8Array([1, 1, 1]));
          continue;
        }
        for (const refused of [request, { command: BLOCK_STATUS, length: 9 }]) {
          client.send(refused);
          const { type, payload } = await client.chunk();
          assertEquals([type, viewOf(payload).getUint32(0)], [0x8001, EIO]);
        }
        assertEquals(await client.readStructured(0, 3), new Uint8Array([1, 1, 1]));
      }
    },
  );
}

/** Answers reads of 4 bytes with their offset, each when the test says so. */
class HeldReads {
  readonly held: { offset: number; answer: () => void }[] = [];
  readonly backend: Backend = fakeBackend({
    size: 2 ** 32,
    readAt: (buffer, offset) =>
      new Promise<void>((resolve) => {
        const answer = () => {
          viewOf(buffer).setUint32(0, offset);
          resolve();
        };
        this.held.push({ offset, answer });
        this.#changed();
      }),
  });
  #changed = () => {};

  async until(count: number): Promise<void> {
    while (this.held.length < count) await new Promise<void>((resolve) => this.#changed = resolve);
  }
}

for (const kind of Object.keys(SERVERS)) {
  Deno.test(`NBD over ${kind}: replies come in the order of the answers`, async () => {
    const reads = new HeldReads();
    const offered = { name: "", description: "", readOnly: false, backend: reads.backend };
    await using server = SERVERS[kind]!({ exports: () => [offered] });
    const client = await RawClient.go(server.connect());
    for (let index = 0; index < 100; index++) {
      client.send({ command: READ, offset: BigInt(index * 4), length: 4, cookie: BigInt(index) });
    }
    await reads.until(100);
    for (const { answer, offset } of reads.held.toReversed()) {
      answer();
      assertEquals(await client.simple(), { error: 0, cookie: BigInt(offset / 4) });
      assertEquals(viewOf(await client.wire.take(4)).getUint32(0), offset);
    }
    client.wire.hangUp();
  });

  Deno.test(`NBD over ${kind}: the backend has so many requests in hand and no more`, async () => {
    const reads = new HeldReads();
    const offered = { name: "", description: "", readOnly: false, backend: reads.backend };
    await using server = SERVERS[kind]!({ exports: () => [offered] });
    const client = await RawClient.go(server.connect());
    const count = 5000;
    const request = (index: number) =>
      requestBytes({ command: READ, offset: BigInt(index), length: 4, cookie: BigInt(index) });
    client.wire.send(concat(Array.from({ length: count }, (_, index) => request(index))));
    let answered = 0;
    while (answered < count) {
      await reads.until(Math.min(1024, count - answered));
      assert(reads.held.length <= 1024, `${reads.held.length} are in hand`);
      const now = reads.held.splice(0);
      for (const { answer } of now) answer();
      for (const _ of now) {
        const { error } = await client.simple();
        assertEquals(error, 0);
        await client.wire.take(4);
        answered++;
      }
    }
  });
}

const HUGE = Number.MAX_SAFE_INTEGER;
const huge = () =>
  fakeBackend({
    size: HUGE,
    readAt: (buffer, offset) => {
      for (let index = 0; index < buffer.length; index++) buffer[index] = (offset + index) % 251;
    },
    extents: (offset, length): Extent[] => [{ offset, length, hole: true, zero: true }],
  });

testOn("an export of 2^53 - 1 bytes: its end is read, and no byte more", huge, async (served) => {
  const simple = await RawClient.go(served.connect());
  const end = await simple.read(HUGE - 1000, 1000);
  assertEquals(end[999], (HUGE - 1) % 251);
  const beyond = { command: READ, offset: BigInt(HUGE - 1000), length: 1001 };
  assertEquals(await simple.error(beyond), EINVAL);
  for (const offset of [BigInt(HUGE), BigInt(HUGE) + 1n, (1n << 64n) - 1n]) {
    assertEquals(await simple.error({ command: READ, offset, length: 1 }), EINVAL);
  }
  const client = await RawClient.go(served.connect(), { structured: true });
  await client.readStructured(HUGE - 1000, 1000);
  for (const offset of [0n, 2n ** 32n - 1n, 2n ** 32n, BigInt(HUGE) - 0xffff_ffffn]) {
    for (const flags of [0, REQ_ONE]) {
      client.send({ command: BLOCK_STATUS, flags, offset, length: 0xffff_ffff });
      const { type, payload } = await client.chunk();
      assertEquals([type, payload.length], [5, 12], "One extent, as all of it is a hole");
      const length = viewOf(payload).getUint32(4);
      assert(length > 0 && length <= 0xffff_ffff);
      assertEquals(viewOf(payload).getUint32(8), 3);
    }
  }
});

testOn(
  "6 GiB of memory: BLOCK_STATUS reaches over 2^32",
  () => openMemory({ size: 6 * 2 ** 30 }),
  async ({ connect }) => {
    const client = await RawClient.go(connect(), { structured: true });
    await client.error({ command: WRITE, offset: 2n ** 32n, payload: pattern(65536, 1) });
    let at = 0n;
    const runs: [bigint, number][] = [];
    while (at < 6n * 2n ** 30n) {
      const left = 6n * 2n ** 30n - at;
      const length = left < 0xffff_ffffn ? Number(left) : 0xffff_ffff;
      client.send({ command: BLOCK_STATUS, offset: at, length });
      const view = viewOf((await client.chunk()).payload);
      for (let entry = 4; entry < view.byteLength; entry += 8) {
        const run = BigInt(view.getUint32(entry)), flags = view.getUint32(entry + 4);
        assert(run > 0n);
        if (runs.at(-1)?.[1] === flags) runs.at(-1)![0] += run;
        else runs.push([run, flags]);
        at += run;
      }
    }
    assertEquals(runs, [[2n ** 32n, 3], [65536n, 0], [2n ** 31n - 65536n, 3]]);
  },
);

for (const size of [0, 1, 511, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1]) {
  const open = () => size === 0 ? fakeBackend({ size }) : openMemory({ size });
  testOn(`an export of ${size} bytes: it is served to its end`, open, async ({ connect }) => {
    const client = await RawClient.go(connect());
    const length = Math.min(size, 10);
    const offset = BigInt(size - length);
    const payload = pattern(length, 1);
    assertEquals(await client.error({ command: WRITE, offset, payload }), 0);
    assertEquals(await client.read(size - length, length), payload);
    assertEquals(await client.error({ command: READ, offset, length: length + 1 }), EINVAL);
    const after = new Uint8Array(length + 1);
    assertEquals(await client.error({ command: WRITE, offset, payload: after }), ENOSPC);
    assertEquals(await client.read(size - length, length), payload);
  });
}

for (const [kind, start] of Object.entries(SERVERS)) {
  Deno.test(`NBD over ${kind}: shutdown() answers what is in hand, and refuses the rest`, async () => {
    const reads = new HeldReads();
    const offered = { name: "", description: "", readOnly: false, backend: reads.backend };
    const sessions: { shutdown(): void }[] = [];
    await using server = start({
      exports: () => [offered],
      onSession: (session) => sessions.push(session),
    });
    const client = await RawClient.go(server.connect());
    client.send({ command: READ, offset: 8n, length: 4, cookie: 1n });
    await reads.until(1);
    sessions[0]!.shutdown();
    const ESHUTDOWN = 108;
    assertEquals(await client.error({ command: READ, length: 4, cookie: 2n }), ESHUTDOWN);
    const payload = new Uint8Array(9);
    assertEquals(await client.error({ command: WRITE, payload, cookie: 3n }), ESHUTDOWN);
    reads.held[0]!.answer();
    assertEquals(await client.simple(), { error: 0, cookie: 1n });
    assertEquals(viewOf(await client.wire.take(4)).getUint32(0), 8);
    await client.wire.ended();
    const idle = await RawClient.go(server.connect());
    sessions[1]!.shutdown();
    await idle.wire.ended();
    await assertRejects(() => idle.wire.take(1));
  });
}
