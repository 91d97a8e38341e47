/** Random bytes, requests and cuts between them, against a model of what the server answers. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import fc from "fast-check";
import { openLibc } from "../../ffi/libc.ts";
import { type MemoryBackend, openMemory } from "../../lib/backend/memory.ts";
import { assertBytes } from "../backend_model.ts";
import {
  bytesOf,
  infoData,
  metaContextData,
  optionBytes,
  RawClient,
  type Request,
  requestBytes,
  utf8,
  viewOf,
} from "./raw_client.ts";
import { SERVERS, type TestServer, type Wire } from "./wire.ts";

openLibc();

const SIZE = 8192;

async function withServer(
  kind: string,
  run: (server: TestServer, backend: MemoryBackend) => Promise<void>,
): Promise<void> {
  const backend = openMemory({ size: SIZE });
  try {
    const offered = { name: "disk", description: "", readOnly: false, backend };
    await using server = SERVERS[kind]!({ exports: () => [offered] });
    await run(server, backend);
  } finally {
    backend.close();
  }
}

/** Sends bytes in pieces that end at each of the cuts. */
function sendCut(wire: Wire, bytes: Uint8Array, cuts: number[]): void {
  let at = 0;
  for (const cut of cuts.map((part) => Math.floor(part * bytes.length)).sort((a, b) => a - b)) {
    if (cut > at) wire.send(bytes.subarray(at, cut));
    at = Math.max(at, cut);
  }
  wire.send(bytes.subarray(at));
}

const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }), {
  maxLength: 12,
});
const edge32 = fc.constantFrom(0, 1, 2, 3, 4, 5, 6, 7, 28, 4096, 4097, 65536, 65537, 2 ** 31)
  .chain((value) => fc.constantFrom(value, 0xffff_ffff - value));
const data = fc.oneof(
  fc.constantFrom(
    new Uint8Array(),
    infoData("disk"),
    infoData("", [0, 1, 2, 3]),
    infoData("none"),
    metaContextData("disk", ["base:allocation"]),
    metaContextData("", []),
  ),
  fc.uint8Array({ maxLength: 64 }),
  fc.tuple(edge32, fc.uint8Array({ maxLength: 40 }))
    .map(([length, rest]) => concat([bytesOf("u32", length), rest])),
);
/** Any option but EXPORT_NAME, whose answer has no frame. */
const option = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 2, max: 12 }) },
  { weight: 1, arbitrary: fc.nat().map((id) => id + 2) },
);
const optionMessage = fc.tuple(option, data).map(([id, bytes]) => optionBytes(id, bytes));
/** An option whose length is not that of its data. */
const lyingOption = fc.tuple(option, edge32, data).map(([id, length, bytes]) =>
  concat([bytesOf("u64", 0x49484156454f5054n, "u32", id, "u32", length), bytes])
);
const handshake = fc.tuple(
  fc.oneof(
    { weight: 9, arbitrary: fc.constantFrom(0, 1, 2, 3) },
    { weight: 1, arbitrary: fc.nat() },
  ),
  fc.array(
    fc.oneof(
      { weight: 12, arbitrary: optionMessage },
      { weight: 1, arbitrary: lyingOption },
      { weight: 1, arbitrary: fc.uint8Array({ maxLength: 60 }) },
    ),
    { maxLength: 12 },
  ),
).map(([flags, messages]) => concat([bytesOf("u32", flags), ...messages]));

/** Asserts that a server's part of a handshake is a greeting and whole replies. */
function assertReplies(bytes: Uint8Array): void {
  assertEquals(bytes.subarray(0, 18).length, 18);
  const view = viewOf(bytes);
  let at = 18;
  while (at < bytes.length) {
    assert(at + 20 <= bytes.length, `A reply is cut at ${at} of ${bytes.length}`);
    if (view.getUint32(at) === 0x67446698 || view.getUint32(at) === 0x668e33ef) return;
    assertEquals(view.getBigUint64(at), 0x3e889045565a9n);
    const type = view.getUint32(at + 12), length = view.getUint32(at + 16);
    const known = [1, 2, 3, 4].includes(type) || type > 0x8000_0000 && type < 0x8000_000a;
    assert(known, `The reply has type ${type}`);
    assert(length <= 4100, `The reply has ${length} bytes`);
    at += 20 + length;
  }
  assertEquals(at, bytes.length, "The last reply is whole");
}

Deno.test("NBD fuzz: any handshake is answered in whole replies, however it is cut", async () => {
  await withServer("a stream", async (server) => {
    const answer = async (bytes: Uint8Array, at: number[]) => {
      const wire = server.connect();
      sendCut(wire, bytes, at);
      wire.hangUp();
      return await wire.takeAll();
    };
    const property = fc.asyncProperty(handshake, cuts, async (bytes, at) => {
      const whole = await answer(bytes, []);
      assertReplies(whole);
      assertBytes(await answer(bytes, at), whole, "The answer to pieces");
      const single = Array.from(bytes, (_, index) => index / bytes.length);
      assertBytes(await answer(bytes, single), whole, "The answer to single bytes");
    });
    await fc.assert(property, { numRuns: 400 });
  });
});

Deno.test("NBD fuzz: no handshake over a socket disturbs another connection", async () => {
  await withServer("a socket", async (server, backend) => {
    backend.writeAt(utf8("hello"), 0);
    const other = await RawClient.go(server.connect());
    const property = fc.asyncProperty(handshake, cuts, async (bytes, at) => {
      const wire = server.connect();
      sendCut(wire, bytes, at);
      assertEquals((await wire.take(18)).length, 18);
      wire.hangUp();
      assertEquals(await other.read(0, 5), utf8("hello"));
    });
    await fc.assert(property, { numRuns: 400 });
  });
});

const READ = 0, WRITE = 1, DISC = 2, FLUSH = 3, TRIM = 4, CACHE = 5, WRITE_ZEROES = 6;
const EINVAL = 22, ENOSPC = 28;

const offset = fc.oneof(
  { weight: 6, arbitrary: fc.bigInt(0n, BigInt(SIZE) + 10n) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n - 512n),
  },
);
const flags = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(0, 0, 0, 1, 2, 3, 4, 8, 16) },
  { weight: 1, arbitrary: fc.nat(0xffff) },
);
const plain = fc.record({
  command: fc.constantFrom(READ, READ, FLUSH, TRIM, CACHE, WRITE_ZEROES, 7, 8, 99, 0xffff),
  flags,
  offset,
  length: fc.oneof(fc.nat(SIZE), edge32),
});
const write = fc.record({
  command: fc.constant(WRITE),
  flags,
  offset,
  payload: fc.uint8Array({ maxLength: 3000 }),
});
const request = fc.oneof(
  { weight: 20, arbitrary: plain },
  { weight: 10, arbitrary: write },
  { weight: 4, arbitrary: fc.record({ command: fc.constant(FLUSH) }) },
  { weight: 1, arbitrary: fc.record({ magic: fc.nat(), command: fc.nat(9) }) },
);

/** Does a request to an array of bytes; answers the error. */
function perform(model: Uint8Array, asked: Request): number {
  const { command = 0, flags = 0, offset = 0n, payload = new Uint8Array() } = asked;
  const length = asked.length ?? payload.length;
  const allowed = new Map([
    [READ, 1],
    [WRITE, 1],
    [FLUSH, 1],
    [TRIM, 1],
    [CACHE, 1],
    [WRITE_ZEROES, 1 | 2 | 16],
  ]);
  if (!allowed.has(command) || (flags & ~allowed.get(command)!) !== 0) return EINVAL;
  if (command === READ && length > 32 << 20) return EINVAL;
  const grows = command === WRITE || command === WRITE_ZEROES;
  if (offset + BigInt(length) > BigInt(SIZE)) return grows ? ENOSPC : EINVAL;
  if (command === FLUSH) return offset === 0n && length === 0 ? 0 : EINVAL;
  const at = Number(offset);
  if (command === WRITE) model.set(payload, at);
  if (command === TRIM || command === WRITE_ZEROES) model.fill(0, at, at + length);
  return 0;
}

/** What a request is answered with. */
interface Expected {
  error: number;
  /** Where the data of a read comes from; nothing for any other reply. */
  offset: number;
  length: number;
}

/** What a server answers until one of the requests closes the connection, by cookie. */
function expectedReplies(requests: Request[], versions: Uint8Array[]): Expected[] {
  const expected: Expected[] = [];
  const model = versions[0]!.slice();
  for (const asked of requests) {
    if (asked.magic !== undefined && asked.magic !== 0x25609513) break;
    if (asked.command === DISC) break;
    const error = perform(model, asked);
    const reads = error === 0 && asked.command === READ;
    const length = reads ? asked.length! : 0;
    expected.push({ error, offset: Number(asked.offset ?? 0n), length });
    versions.push(model.slice());
  }
  return expected;
}

/**
 * Asserts that each request was answered once, in any order. A read may show what was written after
 * it, as they were in flight together.
 */
function assertReplied(bytes: Uint8Array, expected: Expected[], versions: Uint8Array[]): void {
  const view = viewOf(bytes);
  const left = new Map(expected.entries());
  let at = 0;
  while (at < bytes.length) {
    assert(at + 16 <= bytes.length, `A reply is cut at ${at} of ${bytes.length}`);
    assertEquals(view.getUint32(at), 0x67446698, `A reply begins at ${at}`);
    const cookie = Number(view.getBigUint64(at + 8) & 0xffff_ffffn);
    const { error, offset, length } = left.get(cookie)!;
    left.delete(cookie);
    assertEquals(view.getBigUint64(at + 8), cookieOf(cookie));
    assertEquals(view.getUint32(at + 4), error, `The error of request ${cookie}`);
    at += 16;
    for (let index = 0; index < length; index++, at++) {
      const shown = versions.slice(cookie).some((data) => data[offset + index] === bytes[at]);
      assert(shown, `Byte ${index} of request ${cookie} is ${bytes[at]}`);
    }
  }
  assertEquals([...left.keys()], [], "All are answered");
}

/** A cookie that uses all its bits. */
function cookieOf(index: number): bigint {
  return 0xfedc_ba98_0000_0000n + BigInt(index);
}

for (const kind of Object.keys(SERVERS)) {
  Deno.test(`NBD fuzz: requests over ${kind} are answered as the model says`, async () => {
    await withServer(kind, async (server, backend) => {
      const other = await RawClient.go(server.connect());
      const property = fc.asyncProperty(
        fc.array(request, { maxLength: 30 }),
        cuts,
        async (requests, at) => {
          backend.zero(0, SIZE);
          const all = [...requests, { command: DISC }]
            .map((asked, index): Request => ({ ...asked, cookie: cookieOf(index) }));
          const versions = [new Uint8Array(SIZE)];
          const expected = expectedReplies(all, versions);
          const client = await RawClient.go(server.connect());
          sendCut(client.wire, concat(all.map(requestBytes)), at);
          assertReplied(await client.wire.takeAll(), expected, versions);
          assertBytes(await other.read(0, SIZE), versions.at(-1)!, "The export");
        },
      );
      await fc.assert(property, { numRuns: 300 });
    });
  });

  Deno.test(`NBD fuzz: garbage behind GO over ${kind} hurts nobody`, async () => {
    await withServer(kind, async (server) => {
      const other = await RawClient.go(server.connect());
      const garbage = fc.uint8Array({ minLength: 28, maxLength: 300 });
      const property = fc.asyncProperty(garbage, cuts, async (bytes, at) => {
        const client = await RawClient.go(server.connect());
        sendCut(client.wire, bytes, at);
        if (viewOf(bytes).getUint32(0) !== 0x25609513) {
          assertEquals(await client.wire.takeAll(), new Uint8Array());
        }
        client.wire.hangUp();
        await other.read(0, 1);
      });
      await fc.assert(property, { numRuns: 200 });
    });
  });
}
