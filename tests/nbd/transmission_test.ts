/** NBD's transmission phase of the server, byte by byte, on backends that answer at once or later. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { openLibc } from "../../ffi/libc.ts";
import type { Backend } from "../../lib/backend/backend.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { assertBytes, pattern } from "../backend_model.ts";
import { BlockBackend } from "../block_backend.ts";
import { RawClient, type Request, requestBytes, utf8, viewOf } from "./raw_client.ts";
import { type Served, testOn } from "./served.ts";

openLibc();

const READ = 0, WRITE = 1, DISC = 2, FLUSH = 3, TRIM = 4, CACHE = 5, WRITE_ZEROES = 6;
const BLOCK_STATUS = 7;
const FUA = 1, NO_HOLE = 2, DF = 4, REQ_ONE = 8, FAST_ZERO = 16;
const EPERM = 1, EINVAL = 22, ENOSPC = 28;
const MIB = 1 << 20;
const SIZE = 3 * MIB + 77;

const BACKENDS: Record<string, () => Backend> = {
  memory: () => openMemory({ size: SIZE }),
  "a store that answers later": () => new BlockBackend({ size: SIZE, blockSize: 1, seed: 5 }),
};

/** Registers a test for each way to connect and each kind of backend. */
function test(what: string, run: (served: Served) => Promise<void>): void {
  for (const [name, open] of Object.entries(BACKENDS)) {
    testOn(`${name}: ${what}`, open, run);
  }
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
