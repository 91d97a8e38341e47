/** The NBD handshake of the server, byte by byte: what it offers, and what it makes of bad input. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { concat } from "@std/bytes";
import { openLibc } from "../../ffi/libc.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import type { NbdExport } from "../../lib/nbd/export.ts";
import {
  bytesOf,
  exportFacts,
  infoData,
  metaContextData,
  optionBytes,
  RawClient,
  requestBytes,
  utf8,
  viewOf,
} from "./raw_client.ts";
import { SERVERS, type TestServer, type Wire } from "./wire.ts";

openLibc();

const ACK = 1, SERVER = 2, INFO = 3, META_CONTEXT = 4;
const UNSUP = 0x8000_0001, INVALID = 0x8000_0003, UNKNOWN = 0x8000_0006, TOO_BIG = 0x8000_0009;
const EXPORT_NAME = 1, ABORT = 2, LIST = 3, STARTTLS = 5, INFO_OPTION = 6, GO = 7;
const STRUCTURED_REPLY = 8, LIST_META_CONTEXT = 9, SET_META_CONTEXT = 10, EXTENDED_HEADERS = 11;

/** HAS_FLAGS, SEND_FLUSH, SEND_FUA, CAN_MULTI_CONN, SEND_CACHE; the rest where it may be written. */
const READ_FLAGS = 0x1 | 0x4 | 0x8 | 0x100 | 0x400;
const WRITE_FLAGS = READ_FLAGS | 0x20 | 0x40 | 0x800;
const READ_ONLY = 0x2, SEND_DF = 0x80;

const SIZE = 100_001;

/** Begins a server of two exports; "" is the first of them. */
function serveTwo(kind: string, handshakeMs?: number): TestServer & { exports: NbdExport[] } {
  const exports = [
    { name: "first", description: "the default", readOnly: false },
    { name: "zweitëns", description: "", readOnly: true },
  ].map((facts) => ({ ...facts, backend: openMemory({ size: SIZE }) }));
  exports[0]!.backend.writeAt(utf8("hello"), 10);
  const server = SERVERS[kind]!({
    exports: () => exports,
    ...(handshakeMs === undefined ? {} : { handshakeMs }),
  });
  return {
    exports,
    connect: () => server.connect(),
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]();
      for (const { backend } of exports) backend.close();
    },
  };
}

type Case = (server: TestServer & { exports: NbdExport[] }) => Promise<void>;

function test(what: string, run: Case, handshakeMs?: number): void {
  for (const kind of Object.keys(SERVERS)) {
    Deno.test(`NBD handshake over ${kind}: ${what}`, async () => {
      await using server = serveTwo(kind, handshakeMs);
      await run(server);
    });
  }
}

/** Asserts that requests are served on a connection. */
async function assertServes(client: RawClient): Promise<void> {
  assertEquals(await client.read(10, 5), utf8("hello"));
}

/** Asserts that a new connection is served. */
async function assertAlive(server: TestServer): Promise<void> {
  await assertServes(await RawClient.go(server.connect()));
}

test("GO tells size and flags, then serves", async (server) => {
  const client = await RawClient.greet(server.connect());
  const replies = await client.ask(GO, infoData("first"));
  assertEquals(exportFacts(replies), { size: BigInt(SIZE), flags: WRITE_FLAGS });
  assertEquals(replies.map(({ type }) => type), [INFO, ACK]);
  await assertServes(client);
});

test("INFO tells all that was asked for, and leaves the handshake open", async (server) => {
  const client = await RawClient.greet(server.connect());
  const asked = [3, 1, 2, 0, 77, 1];
  const replies = await client.ask(INFO_OPTION, infoData("zweitëns", asked));
  assertEquals(exportFacts(replies), { size: BigInt(SIZE), flags: READ_FLAGS | READ_ONLY });
  const infos = new Map(
    replies.slice(0, -1).map(({ type, data }) => {
      assertEquals(type, INFO);
      return [viewOf(data).getUint16(0), data.subarray(2)];
    }),
  );
  assertEquals(infos.get(1), utf8("zweitëns"));
  assertEquals(infos.get(2), new Uint8Array());
  assertEquals(infos.get(3), bytesOf("u32", 1, "u32", 4096, "u32", 32 << 20));
  assertEquals([...infos.keys()].sort(), [0, 1, 2, 3]);
  const same = await client.ask(GO, infoData("zweitëns", asked));
  assertEquals(
    same.map(({ type, data }) => ({ type, data })),
    replies.map(({ type, data }) => ({ type, data })),
  );
});

test("the empty name is the first export, unless one is called that", async (server) => {
  const client = await RawClient.greet(server.connect());
  const name = async () => (await client.ask(INFO_OPTION, infoData("", [1])))[1]!.data.subarray(2);
  assertEquals(await name(), utf8("first"));
  server.exports.push({ ...server.exports[0]!, name: "" });
  assertEquals(await name(), utf8(""));
  server.exports.pop();
});

test("EXPORT_NAME serves, with and without zeroes", async (server) => {
  for (const [flags, zeroes] of [[3, 0], [1, 124], [0, 124], [2, 0]] as const) {
    const client = await RawClient.greet(server.connect(), flags);
    client.wire.send(optionBytes(EXPORT_NAME, utf8("first")));
    const answer = await client.wire.take(10 + zeroes);
    const expected = bytesOf("u64", SIZE, "u16", WRITE_FLAGS);
    assertEquals(answer, concat([expected, new Uint8Array(zeroes)]));
    await assertServes(client);
  }
});

test("EXPORT_NAME of an unknown or impossible export closes the connection", async (server) => {
  for (const name of [utf8("none"), utf8("fir"), new Uint8Array([0xff]), utf8("first\0")]) {
    const client = await RawClient.greet(server.connect());
    client.wire.send(optionBytes(EXPORT_NAME, name));
    assertEquals(await client.wire.takeAll(), new Uint8Array());
  }
  await assertAlive(server);
});

test("ABORT is acknowledged, whatever it carries, and closes the connection", async (server) => {
  for (const length of [0, 5, 4096]) {
    const client = await RawClient.greet(server.connect());
    assertEquals((await client.ask(ABORT, new Uint8Array(length)))[0]!.type, ACK);
    await client.wire.ended();
  }
});

test("LIST names each export", async (server) => {
  const client = await RawClient.greet(server.connect());
  const replies = await client.ask(LIST);
  assertEquals(replies.map(({ type }) => type), [SERVER, SERVER, ACK]);
  assertEquals(replies[0]!.data, concat([bytesOf("u32", 5), utf8("first"), utf8("the default")]));
  assertEquals(replies[1]!.data, concat([bytesOf("u32", 9), utf8("zweitëns")]));
  assertEquals((await client.ask(LIST, utf8("x")))[0]!.type, INVALID);
  for (let index = 0; index < 3000; index++) {
    server.exports.push({ ...server.exports[0]!, name: `${index}` });
  }
  assertEquals((await client.ask(LIST)).length, 3003);
  server.exports.length = 2;
});

test("a client that does not speak fixed newstyle may send GO", async (server) => {
  const client = await RawClient.greet(server.connect(), 0);
  const replies = await client.ask(GO, infoData(""));
  assertEquals(replies.at(-1)!.type, ACK);
  await assertServes(client);
});

test("the client of go-nbd is served, which does not count GO's data", async (server) => {
  for (const name of ["default", "first", ""]) {
    for (const step of [1000, 1]) {
      const client = await RawClient.greet(server.connect(), 0);
      const message = concat([optionBytes(GO), infoData(name)]);
      for (let at = 0; at < message.length; at += step) {
        client.wire.send(message.subarray(at, at + step));
      }
      const replies = [await client.optionReply(), await client.optionReply()];
      assertEquals(exportFacts(replies), { size: BigInt(SIZE), flags: WRITE_FLAGS });
      const blockSizes = bytesOf("u16", 3, "u32", 1, "u32", 4096, "u32", 32 << 20);
      assertEquals(replies[1]!.data, blockSizes);
      assertEquals((await client.optionReply()).type, ACK);
      await assertServes(client);
    }
  }
  const wrong = await RawClient.greet(server.connect(), 0);
  wrong.wire.send(concat([optionBytes(GO), bytesOf("u32", 0xffff_ffff)]));
  assertEquals(await wrong.wire.takeAll(), new Uint8Array());
});

test("GO without data is invalid where the client speaks fixed newstyle", async (server) => {
  const client = await RawClient.greet(server.connect());
  assertEquals((await client.ask(GO))[0]!.type, INVALID);
  assertEquals((await client.ask(GO, infoData("default")))[0]!.type, UNKNOWN);
  await client.ask(GO, infoData(""));
  await assertServes(client);
});

test("client flags that were not offered close the connection", async (server) => {
  for (const flags of [4, 0x8000_0000, 0xffff_ffff]) {
    const client = await RawClient.greet(server.connect(), flags);
    assertEquals(await client.wire.takeAll(), new Uint8Array());
  }
  await assertAlive(server);
});

test("unknown options are refused, and the next one is understood", async (server) => {
  const client = await RawClient.greet(server.connect());
  for (const option of [0, 4, 12, 0x7654321, 0xffff_ffff, EXTENDED_HEADERS]) {
    for (const length of [0, 4, 65536]) {
      const [reply] = await client.ask(option, new Uint8Array(length).fill(0x49));
      assertEquals(reply!.type, UNSUP);
    }
  }
  await client.ask(GO, infoData(""));
  await assertServes(client);
});

test("STARTTLS is refused", async (server) => {
  const client = await RawClient.greet(server.connect());
  assertEquals((await client.ask(STARTTLS))[0]!.type, UNSUP);
  assertEquals((await client.ask(STARTTLS, utf8("x")))[0]!.type, INVALID);
  await client.ask(GO, infoData(""));
  await assertServes(client);
});

test("options with data that they do not take are invalid", async (server) => {
  const client = await RawClient.greet(server.connect());
  assertEquals((await client.ask(STRUCTURED_REPLY, utf8("x")))[0]!.type, INVALID);
  const [, reply] = await client.ask(GO, infoData(""));
  assertEquals(reply!.type, ACK);
  assertEquals(await client.read(10, 5), utf8("hello"), "Replies are simple");
});

test("structured replies are negotiated once or again", async (server) => {
  const client = await RawClient.greet(server.connect());
  assertEquals((await client.ask(STRUCTURED_REPLY))[0]!.type, ACK);
  assertEquals((await client.ask(STRUCTURED_REPLY))[0]!.type, ACK);
  const replies = await client.ask(GO, infoData(""));
  assertEquals(exportFacts(replies).flags, WRITE_FLAGS | SEND_DF);
  assertEquals(await client.readStructured(10, 5), utf8("hello"));
});

/** Data of INFO whose inner lengths do not agree with its length. */
const BAD_INFOS: Record<string, Uint8Array> = {
  "half a length": bytesOf("u16", 0),
  "no count": bytesOf("u32", 0),
  "a name over the end": concat([bytesOf("u32", 6), utf8("first"), bytesOf("u16", 0)]),
  "a name of 2^32 - 1 bytes": concat([bytesOf("u32", 0xffff_ffff), utf8("first")]),
  "a name of 2^32 - 5 bytes": concat([bytesOf("u32", 0xffff_fffb), utf8("first")]),
  "a name over the count": concat([bytesOf("u32", 7), utf8("first"), bytesOf("u16", 0)]),
  "more infos than are there": concat([infoData("first").subarray(0, 9), bytesOf("u16", 1)]),
  "fewer infos than are there": concat([infoData("first", [1]), bytesOf("u16", 2)]),
  "65535 infos claimed": concat([infoData("first").subarray(0, 9), bytesOf("u16", 0xffff)]),
  "a name with NUL": infoData("fir\0st"),
  "a name that is not UTF-8": infoData(new Uint8Array([0x66, 0xc3, 0x28])),
  "a surrogate": infoData(new Uint8Array([0xed, 0xa0, 0x80])),
  "a name of 4097 bytes": infoData("x".repeat(4097)),
  "a name of 60000 bytes": infoData("x".repeat(60_000)),
};

test("INFO and GO whose lengths do not agree are invalid", async (server) => {
  const client = await RawClient.greet(server.connect());
  for (const [what, data] of Object.entries(BAD_INFOS)) {
    assertEquals((await client.ask(INFO_OPTION, data))[0]!.type, INVALID, what);
    assertEquals((await client.ask(GO, data))[0]!.type, INVALID, what);
  }
  await client.ask(GO, infoData("first"));
  await assertServes(client);
});

test("names of up to 4096 bytes are unknown, not invalid", async (server) => {
  const client = await RawClient.greet(server.connect());
  for (const length of [1, 255, 256, 257, 1024, 1025, 4095, 4096]) {
    for (const option of [INFO_OPTION, GO]) {
      const [reply] = await client.ask(option, infoData("x".repeat(length)));
      assertEquals(reply!.type, UNKNOWN);
      assert(reply!.data.length <= 4096, "The message is a legal string");
    }
  }
  await client.ask(GO, infoData("", Array(20_000).fill(3)));
  await assertServes(client);
});

test("an option too long to read is dropped and refused, a huge one closes", async (server) => {
  const client = await RawClient.greet(server.connect());
  for (const length of [65_537, 1 << 20]) {
    const [reply] = await client.ask(INFO_OPTION, new Uint8Array(length).fill(0x49));
    assertEquals(reply!.type, TOO_BIG);
  }
  assertEquals((await client.ask(LIST)).length, 3, "The stream is in step");
  for (const length of [(1 << 20) + 1, 0x7fff_ffff, 0xffff_ffff]) {
    const huge = await RawClient.greet(server.connect());
    huge.wire.send(concat([bytesOf("u64", 0x49484156454f5054n, "u32", 6, "u32", length)]));
    assertEquals(await huge.wire.takeAll(), new Uint8Array());
  }
});

test("a bad magic number closes the connection", async (server) => {
  const client = await RawClient.greet(server.connect());
  client.wire.send(bytesOf("u64", 0x49484156454f5055n, "u32", LIST, "u32", 0));
  assertEquals(await client.wire.takeAll(), new Uint8Array());
  await assertAlive(server);
});

test("too many options close the connection", async (server) => {
  const client = await RawClient.greet(server.connect());
  let answered = 0;
  await assertRejects(async () => {
    for (; answered < 1000; answered++) await client.ask(99);
  });
  assertEquals(answered, 64);
  await assertAlive(server);
});

test("meta contexts are listed and selected", async (server) => {
  const client = await RawClient.greet(server.connect());
  const query = metaContextData("first", ["base:allocation"]);
  assertEquals((await client.ask(SET_META_CONTEXT, query))[0]!.type, INVALID, "Not structured");
  assertEquals((await client.ask(LIST_META_CONTEXT, query))[0]!.type, INVALID, "Not structured");
  await client.ask(STRUCTURED_REPLY);
  const found = async (option: number, queries: string[], name = "first") =>
    (await client.ask(option, metaContextData(name, queries))).map(({ type }) => type);
  for (const queries of [[], ["base:"], ["base:allocation"], ["x-a:b", "base:allocation"]]) {
    assertEquals(await found(LIST_META_CONTEXT, queries), [META_CONTEXT, ACK], `${queries}`);
  }
  for (const queries of [["x-a:b"], ["base:none"], ["qemu:"], ["base"], [""]]) {
    assertEquals(await found(LIST_META_CONTEXT, queries), [ACK], `${queries}`);
  }
  for (const queries of [[], ["base:"], ["x-a:b"]]) {
    assertEquals(await found(SET_META_CONTEXT, queries), [ACK], `${queries}`);
  }
  const twice = ["base:allocation", "base:allocation"];
  assertEquals(await found(SET_META_CONTEXT, twice), [META_CONTEXT, ACK]);
  assertEquals(await found(SET_META_CONTEXT, [], "none"), [UNKNOWN]);
  const [context] = await client.ask(SET_META_CONTEXT, query);
  assert(viewOf(context!.data).getUint32(0) !== 0, "The id is not the reserved one");
  assertEquals(context!.data.subarray(4), utf8("base:allocation"));
});

const BAD_CONTEXTS: Record<string, Uint8Array> = {
  nothing: new Uint8Array(),
  "no count": bytesOf("u32", 0),
  "more queries than are there": bytesOf("u32", 0, "u32", 1),
  "2^32 - 1 queries": bytesOf("u32", 0, "u32", 0xffff_ffff),
  "2^30 queries": bytesOf("u32", 0, "u32", 0x4000_0000),
  "a query over the end": bytesOf("u32", 0, "u32", 1, "u32", 1),
  "fewer queries than are there": concat([metaContextData("", ["base:"]), utf8("x")]),
  "a query of 4097 bytes": metaContextData("", ["base:" + "x".repeat(4092)]),
};

test("meta context requests whose lengths do not agree are invalid", async (server) => {
  const client = await RawClient.greet(server.connect());
  await client.ask(STRUCTURED_REPLY);
  for (const [what, data] of Object.entries(BAD_CONTEXTS)) {
    assertEquals((await client.ask(SET_META_CONTEXT, data))[0]!.type, INVALID, what);
    assertEquals((await client.ask(LIST_META_CONTEXT, data))[0]!.type, INVALID, what);
  }
});

test("a selection of contexts holds for its export, until the next one", async (server) => {
  const status = { command: 7, length: 512 };
  const select = metaContextData("first", ["base:allocation"]);
  const ways: [string, (client: RawClient) => Promise<unknown>, string, boolean][] = [
    ["selected", (client) => client.ask(SET_META_CONTEXT, select), "first", true],
    ["by the default name", (client) => client.ask(SET_META_CONTEXT, select), "", true],
    ["for another export", (client) => client.ask(SET_META_CONTEXT, select), "zweitëns", false],
    ["never", () => Promise.resolve(), "first", false],
    [
      "taken back",
      async (client) => {
        await client.ask(SET_META_CONTEXT, select);
        await client.ask(SET_META_CONTEXT, metaContextData("first", []));
      },
      "first",
      false,
    ],
    [
      "void by a failure",
      async (client) => {
        await client.ask(SET_META_CONTEXT, select);
        await client.ask(SET_META_CONTEXT, bytesOf("u32", 9));
      },
      "first",
      false,
    ],
    ["listed only", (client) => client.ask(LIST_META_CONTEXT, select), "first", false],
  ];
  for (const [what, prepare, name, selected] of ways) {
    const client = await RawClient.greet(server.connect());
    await client.ask(STRUCTURED_REPLY);
    await prepare(client);
    await client.ask(GO, infoData(name));
    client.send(status);
    assertEquals((await client.chunk()).type, selected ? 5 : 0x8001, what);
  }
});

/** Every order of some options, then GO. */
function permutations<T>(items: T[]): T[][] {
  if (items.length === 0) return [[]];
  return items.flatMap((item, index) =>
    permutations(items.toSpliced(index, 1)).map((rest) => [item, ...rest])
  );
}

test("options are served in every order", async (server) => {
  const options: [number, Uint8Array][] = [
    [LIST, new Uint8Array()],
    [INFO_OPTION, infoData("first", [0, 1, 2, 3])],
    [STRUCTURED_REPLY, new Uint8Array()],
    [SET_META_CONTEXT, metaContextData("first", ["base:allocation"])],
    [STARTTLS, new Uint8Array()],
    [GO, infoData("none")],
  ];
  for (const order of permutations(options)) {
    const client = await RawClient.greet(server.connect());
    let structured = false, selected = false;
    for (const [option, data] of order) {
      const { type } = (await client.ask(option, data)).at(-1)!;
      if (option === STRUCTURED_REPLY) structured = true;
      if (option === SET_META_CONTEXT) selected = structured;
      const refused = { [STARTTLS]: UNSUP, [GO]: UNKNOWN }[option] ??
        (option === SET_META_CONTEXT && !structured ? INVALID : ACK);
      assertEquals(type, refused, `Option ${option}`);
    }
    await client.ask(GO, infoData("first"));
    client.send({ command: 7, length: 10 });
    assertEquals((await client.chunk()).type, selected ? 5 : 0x8001);
    client.wire.hangUp();
  }
});

/** A handshake of many options, and a request. */
const WHOLE_HANDSHAKE = concat([
  bytesOf("u32", 3),
  optionBytes(LIST),
  optionBytes(0x7654321, utf8("data")),
  optionBytes(STRUCTURED_REPLY),
  optionBytes(SET_META_CONTEXT, metaContextData("first", ["base:allocation"])),
  optionBytes(GO, infoData("first", [3])),
  requestBytes({ command: 0, cookie: 7n, offset: 10n, length: 5 }),
]);

test("hanging up at any byte of a handshake hurts nobody else", async (server) => {
  const other = await RawClient.go(server.connect());
  const wires: Wire[] = [];
  for (let length = 0; length <= WHOLE_HANDSHAKE.length; length++) {
    const wire = server.connect();
    wire.send(WHOLE_HANDSHAKE.subarray(0, length));
    wires.push(wire);
    if (length % 2 === 0) await wire.take(18);
    wire.hangUp();
    if (length % 16 === 0) await assertServes(other);
  }
  await assertServes(other);
  await assertAlive(server);
});

test("one byte at a time, it is the same handshake", async (server) => {
  const answers = [];
  for (const step of [WHOLE_HANDSHAKE.length, 1]) {
    const wire = server.connect();
    for (let at = 0; at < WHOLE_HANDSHAKE.length; at += step) {
      wire.send(WHOLE_HANDSHAKE.subarray(at, at + step));
    }
    wire.send(requestBytes({ command: 2 }));
    answers.push(await wire.takeAll());
  }
  assertEquals(answers[1], answers[0]);
  assertEquals(answers[0]!.subarray(-5), utf8("hello"));
});

test("requests right behind GO are answered", async (server) => {
  const wire = server.connect();
  wire.send(concat([
    bytesOf("u32", 3),
    optionBytes(GO, infoData("first")),
    requestBytes({ command: 0, offset: 10n, length: 5 }),
    requestBytes({ command: 2 }),
  ]));
  assertEquals((await wire.takeAll()).subarray(-5), utf8("hello"));
});

test("whoever dawdles over the handshake is dropped, a quiet session is not", async (server) => {
  const served = await RawClient.go(server.connect());
  const began = performance.now();
  const silent = server.connect();
  const slow = server.connect();
  let dropped = false;
  const trickle = async () => {
    // Enough for 800 ms.
    for (const byte of WHOLE_HANDSHAKE.subarray(0, 40)) {
      if (dropped) return;
      slow.send(new Uint8Array([byte]));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  await Promise.all([silent.ended(), slow.ended().then(() => dropped = true), trickle()]);
  assert(performance.now() - began >= 250, "They had their time");
  await assertServes(served);
  assertEquals(silent.receivedBytes, 18);
}, 300);
