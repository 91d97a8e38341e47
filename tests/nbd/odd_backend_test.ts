/** The NBD server on backends that are slow, broken, bare, huge or tiny. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { concat } from "@std/bytes";
import { openLibc } from "../../ffi/libc.ts";
import type { Awaitable, Backend, Extent } from "../../lib/backend/backend.ts";
import { ReadOnlyError } from "../../lib/backend/errors.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { assertBytes, pattern } from "../backend_model.ts";
import { RawClient, type Request, requestBytes, viewOf } from "./raw_client.ts";
import { fakeBackend, testOn } from "./served.ts";
import { SERVERS } from "./wire.ts";

openLibc();

const READ = 0, WRITE = 1, FLUSH = 3, TRIM = 4, CACHE = 5, WRITE_ZEROES = 6, BLOCK_STATUS = 7;
const FUA = 1, NO_HOLE = 2, REQ_ONE = 8, FAST_ZERO = 16;
const EPERM = 1, EIO = 5, EINVAL = 22, ENOSPC = 28, ENOTSUP = 95, ESHUTDOWN = 108;
const MIB = 1 << 20;
const SIZE = 3 * MIB + 77;

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
