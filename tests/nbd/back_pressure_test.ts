/** Clients of the NBD server that do not take their replies, or take them in bits. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { cpuUsage } from "node:process";
import { openLibc } from "../../ffi/libc.ts";
import type { Backend } from "../../lib/backend/backend.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { assertBytes, pattern } from "../backend_model.ts";
import { BlockBackend } from "../block_backend.ts";
import { RawClient, requestBytes } from "./raw_client.ts";
import { SERVERS, type Wire } from "./wire.ts";

openLibc();

const READ = 0, WRITE = 1, DISC = 2;
const MIB = 1 << 20, SIZE = 4 * MIB;

const BACKENDS: Record<string, () => Backend> = {
  memory: () => openMemory({ size: SIZE }),
  "a store that answers later": () => new BlockBackend({ size: SIZE, blockSize: 1, seed: 9 }),
};

function test(what: string, run: (connect: () => Wire) => Promise<void>): void {
  for (const [kind, start] of Object.entries(SERVERS)) {
    for (const [name, open] of Object.entries(BACKENDS)) {
      Deno.test(`NBD over ${kind} on ${name}: ${what}`, async () => {
        await using backend = open();
        await backend.writeAt(pattern(SIZE, 1), 0);
        const offered = { name: "", description: "", readOnly: false, backend };
        await using server = start({ exports: () => [offered] });
        await run(() => server.connect());
      });
    }
  }
}

/** Lets the server work, until it has come to rest. */
async function rest(wire: Wire): Promise<void> {
  for (let quiet = 0, seen = -1; quiet < 5; quiet++) {
    if (wire.receivedBytes !== seen) quiet = 0;
    seen = wire.receivedBytes;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Bytes of memory that are in use, beside what is garbage. */
function residentBytes(): number {
  return Deno.memoryUsage().rss;
}

test("replies that nobody takes wait, in bounded memory and without work", async (connect) => {
  const other = await RawClient.go(connect());
  const client = await RawClient.go(connect());
  client.wire.listen(false);
  const count = 200;
  const expected = pattern(SIZE, 1).subarray(5, 5 + MIB);
  const reads = Array.from(
    { length: count },
    (_, index) => requestBytes({ command: READ, cookie: BigInt(index), offset: 5n, length: MIB }),
  );
  const before = residentBytes();
  client.wire.send(concat(reads));
  await rest(client.wire);
  assert(residentBytes() - before < 120 * MIB, "Most of 200 MiB of replies is not made yet");
  const used = cpuUsage();
  await new Promise((resolve) => setTimeout(resolve, 200));
  const { user, system } = cpuUsage(used);
  assert(user + system < 100_000, `${user + system} us of work in 200 ms of waiting`);
  assertBytes(await other.read(0, 100), pattern(100, 1), "Others are served");
  client.wire.listen(true);
  const answered = new Set<bigint>();
  while (answered.size < count) {
    const { error, cookie } = await client.simple();
    assertEquals(error, 0);
    answered.add(cookie);
    const data = await client.wire.take(MIB);
    if (answered.size % 50 === 0) assertBytes(data, expected, `Reply ${answered.size}`);
  }
});

test("writes behind replies that nobody takes are all done when they are", async (connect) => {
  const client = await RawClient.go(connect());
  client.wire.listen(false);
  const reads = 30, writes = 60;
  for (let index = 0; index < reads; index++) client.send({ command: READ, length: MIB });
  for (let index = 0; index < writes; index++) {
    const payload = pattern(MIB, index);
    client.send({ command: WRITE, offset: BigInt(2 * MIB), payload, cookie: 1n });
  }
  await rest(client.wire);
  assert(client.wire.unsentBytes > (writes - 4) * MIB, "Most writes are not received yet");
  client.wire.listen(true);
  const left = { read: reads, written: writes };
  while (left.read + left.written > 0) {
    const { error, cookie } = await client.simple();
    assertEquals(error, 0);
    if (cookie === 1n) {
      left.written--;
      continue;
    }
    left.read--;
    const data = await client.wire.take(MIB);
    if (left.read % 10 === 0) assertBytes(data, pattern(MIB, 1), "A read before the writes");
  }
  client.wire.hangUp();
});

test("replies of any length, cut anywhere, are whole", async (connect) => {
  for (const structured of [false, true]) {
    const client = await RawClient.go(connect(), { structured });
    const all = pattern(SIZE, 1);
    const count = 600;
    const range = (index: number) => {
      const length = (index * 7919) % 60_000 + 1;
      return { offset: (index * 104_729) % (SIZE - length), length };
    };
    client.wire.listen(false);
    client.wire.send(concat(Array.from({ length: count }, (_, index) => {
      const { offset, length } = range(index);
      return requestBytes({ command: READ, cookie: BigInt(index), offset: BigInt(offset), length });
    })));
    await rest(client.wire);
    client.wire.listen(true);
    const answered = new Set<bigint>();
    while (answered.size < count) {
      const { cookie, data } = structured ? await chunk(client) : await simple(client, range);
      assert(!answered.has(cookie));
      answered.add(cookie);
      const { offset, length } = range(Number(cookie));
      assertBytes(data, all.subarray(offset, offset + length), `Reply ${cookie}`);
    }
  }
});

async function chunk(client: RawClient): Promise<{ cookie: bigint; data: Uint8Array }> {
  const { type, cookie, payload } = await client.chunk();
  assertEquals(type, 1);
  return { cookie, data: payload.subarray(8) };
}

async function simple(
  client: RawClient,
  range: (index: number) => { length: number },
): Promise<{ cookie: bigint; data: Uint8Array }> {
  const { error, cookie } = await client.simple();
  assertEquals(error, 0);
  return { cookie, data: await client.wire.take(range(Number(cookie)).length) };
}

test("replies that nobody takes are still there after a goodbye", async (connect) => {
  const client = await RawClient.go(connect());
  client.wire.listen(false);
  const reads = Array(20).fill(requestBytes({ command: READ, length: MIB }));
  client.wire.send(concat([...reads, requestBytes({ command: DISC })]));
  await rest(client.wire);
  client.wire.listen(true);
  const replies = await client.wire.takeAll();
  assertEquals(replies.length, 20 * (16 + MIB));
});

test("hanging up instead of taking replies hurts nobody", async (connect) => {
  const other = await RawClient.go(connect());
  for (let round = 0; round < 3; round++) {
    const client = await RawClient.go(connect());
    client.wire.listen(false);
    client.wire.send(concat(Array(50).fill(requestBytes({ command: READ, length: MIB }))));
    await rest(client.wire);
    client.wire.hangUp();
    client.wire.listen(true);
    assertBytes(await other.read(0, 100), pattern(100, 1), "Others are served");
  }
});
