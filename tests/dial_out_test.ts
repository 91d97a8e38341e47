/** Servers that dial their client: both lanes, cuts, restarts, wrong tokens, and hostile sides. */
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import fc from "fast-check";
import { EventFd } from "../ffi/epoll.ts";
import { ERRNO } from "../ffi/errno.ts";
import { openLibc } from "../ffi/libc.ts";
import { DeadlineError, UsageError } from "../lib/backend/errors.ts";
import { type MemoryBackend, openMemory } from "../lib/backend/memory.ts";
import {
  acceptDialled,
  type AcceptDialledOptions,
  type DialledServers,
} from "../lib/host/accept_dialled.ts";
import { Pattern } from "../lib/backend/pattern.ts";
import { type DialOut, dialOut, type DialOutOptions } from "../lib/host/dial_out.ts";
import { BackendHost } from "../lib/host/host.ts";
import { Listener } from "../lib/host/listener.ts";
import { Outward } from "../lib/host/outward.ts";
import { listenAt } from "../lib/host/listen_at.ts";
import { parseAddress } from "../lib/net/address.ts";
import { Reactor } from "../lib/net/reactor.ts";
import { SlotPool } from "../lib/net/slot_pool.ts";
import { connectTelemap } from "../lib/rpc/client.ts";
import { encodeClientHello } from "../lib/rpc/hello.ts";
import {
  decodeReverseAnswer,
  decodeReverseHello,
  encodeReverseAnswer,
  encodeReverseHello,
  encodeReverseRefusal,
  type ReverseHello,
  reverseHelloLength,
} from "../lib/rpc/reverse_hello.ts";
import { FEATURE, TYPE } from "../lib/rpc/wire.ts";
import { testBackend } from "./backend_conformance.ts";
import { pattern } from "./backend_model.ts";
import { type Harm, HarmfulProxy } from "./rpc/harmful_proxy.ts";
import { clientHello, WirePeer } from "./rpc/wire_peer.ts";

openLibc();

const SIZE = 4 << 20;
const quiet = { log: () => {} };

/** A server in a Worker that dials a client in this isolate, and what went by. */
interface Pair extends AsyncDisposable {
  memory: MemoryBackend;
  host: BackendHost;
  servers: DialledServers;
  out: DialOut;
}

async function pair(
  options: DialOutOptions & AcceptDialledOptions & { harm?: Harm } = {},
): Promise<Pair> {
  const { harm, ...rest } = options;
  const memory = openMemory({ size: SIZE });
  const host = await BackendHost.start(memory);
  const servers = acceptDialled("telemap://127.0.0.1:0/disk", rest);
  const proxy = harm && HarmfulProxy.start(servers.url, harm);
  const url = proxy === undefined ? servers.url : `${proxy.url}/disk`;
  const out = await dialOut(host, url, { ...quiet, ...rest });
  return {
    ...{ memory, host, servers, out },
    async [Symbol.asyncDispose]() {
      await servers.close();
      await out.close();
      await host.close();
      await proxy?.[Symbol.asyncDispose]();
      await memory.close();
    },
  };
}

/** The other end of a reverse hello, in the hands of a test. */
class ReversePeer extends WirePeer {
  static async dialTo(url: string): Promise<ReversePeer> {
    const { hostname, port } = new URL(url);
    return new ReversePeer(await Deno.connect({ hostname, port: Number(port) }));
  }

  /** As a server: says hello. */
  async say(hello: Partial<ReverseHello> = {}): Promise<void> {
    await this.write(encodeReverseHello({ name: "disk", token: "", ...hello }));
  }

  /** As a server: what the client answers. */
  async answer() {
    return decodeReverseAnswer(await this.readReverse());
  }

  /** As a client: what the server says. */
  async hear(): Promise<ReverseHello> {
    return decodeReverseHello(await this.readReverse());
  }

  async readReverse(): Promise<Uint8Array<ArrayBuffer>> {
    const prefix = await this.read(16);
    if (prefix === undefined) throw new Error("The connection ended before the hello");
    const rest = await this.read(reverseHelloLength(new DataView(prefix.buffer), 0) - 16);
    return new Uint8Array([...prefix, ...rest!]);
  }
}

/** A client that listens, each of whose connections is treated by a test. */
async function withListener(
  serve: (peer: ReversePeer, count: number) => Promise<void>,
  run: (url: string, accepted: () => number) => Promise<void>,
): Promise<void> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  let count = 0;
  const serving: Promise<void>[] = [];
  const treat = async (conn: Deno.Conn, at: number) => {
    using peer = new ReversePeer(conn);
    // The other side may be gone before all is said.
    await serve(peer, at).catch(() => {});
  };
  const accepting = (async () => {
    for await (const conn of listener) serving.push(treat(conn, count++));
  })();
  try {
    await run(`telemap://127.0.0.1:${listener.addr.port}/disk`, () => count);
  } finally {
    listener.close();
    await accepting;
    await Promise.all(serving);
  }
}

/** Lines of a log, and when the next one comes. */
class Lines {
  readonly lines: string[] = [];
  #next = Promise.withResolvers<string>();

  readonly log = (line: string): void => {
    this.lines.push(line);
    this.#next.resolve(line);
    this.#next = Promise.withResolvers();
  };

  next(): Promise<string> {
    return this.#next.promise;
  }
}

/** Waits for what nobody tells of. */
async function until(condition: () => boolean): Promise<void> {
  const late = performance.now() + 20_000;
  while (!condition()) {
    assert(performance.now() < late, `This never came: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

{
  let made: Pair;
  testBackend("telemap over connections that the server made", {
    open: async () => {
      made = await pair();
      return await made.servers.connect(quiet);
    },
    remove: async () => await made[Symbol.asyncDispose](),
    runs: 5,
  });
}

Deno.test("a region is read and written on both lanes, and flushed", async () => {
  await using made = await pair({ token: "sesame" });
  const region = await made.servers.connect(quiet);
  const content = pattern(SIZE - 7, 5);
  await region.writeAt(content, 7);
  await region.writeAt(content.subarray(0, 100), 7);
  await region.flush();
  const bytes = new Uint8Array(SIZE - 7);
  await made.memory.readAt(bytes, 7);
  assertEquals(bytes, content);
  await region.readAt(bytes.fill(0), 7);
  assertEquals(bytes, content);
  assertEquals(region.size, SIZE);
});

Deno.test("what is taken is replaced: as many connections as before wait again", async () => {
  await using made = await pair({ waiting: 2 });
  await until(() => made.servers.waiting() === 2);
  const region = await made.servers.connect(quiet);
  await region.readAt(new Uint8Array(100_000), 0);
  await until(() => made.servers.waiting() === 2);
  // Two regions at a time are two sessions of one server.
  const other = await made.servers.connect(quiet);
  await other.writeAt(new Uint8Array([9]), 5);
  const byte = new Uint8Array(1);
  await region.readAt(byte, 5);
  assertEquals(byte[0], 9);
});

Deno.test("a read-only offer refuses changes", async () => {
  await using made = await pair({ readOnly: true });
  const region = await made.servers.connect(quiet);
  assert(region.readOnly);
});

Deno.test("connections that are cut anywhere change nothing but the time it takes", async () => {
  const cuts = fc.array(fc.integer({ min: 1, max: 300_000 }), { minLength: 1, maxLength: 6 });
  const property = fc.asyncProperty(cuts, fc.nat(1000), async (positions, seed) => {
    const harm: Harm = ({ bytes, position, connection }) => {
      const left = (positions[connection] ?? Infinity) - position;
      return left <= bytes.length ? Math.max(left, 0) : undefined;
    };
    await using made = await pair({ harm });
    const connect = () => made.servers.connect(quiet).catch(() => undefined);
    let region = await connect();
    while (region === undefined) region = await connect();
    const model = pattern(SIZE, seed);
    const pieces = [1, 4096, 65537, 300_000];
    const writes: Promise<void>[] = [];
    for (let at = 0, turn = seed; at < SIZE; turn++) {
      const piece = model.subarray(at, at + pieces[turn % pieces.length]!);
      writes.push(Promise.resolve(region.writeAt(piece, at)));
      at += piece.length;
    }
    await Promise.all(writes);
    await region.flush();
    const bytes = new Uint8Array(SIZE);
    await made.memory.readAt(bytes, 0);
    assertEquals(bytes, model);
  });
  await fc.assert(property, { numRuns: 5 });
});

Deno.test("a client that is there later is reached, and again after it was restarted", async () => {
  const directory = await Deno.makeTempDir();
  const url = `telemap+unix:///disk?socket=${directory}/socket`;
  await using host = await BackendHost.start(`memory:${SIZE}`);
  const lines = new Lines();
  const first = lines.next();
  await using _out = await dialOut(host, url, { log: lines.log });
  assertStringIncludes(await first, "there is no such socket");
  for (let round = 0; round < 3; round++) {
    const reached = lines.next();
    const servers = acceptDialled(url);
    const region = await servers.connect(quiet);
    await region.writeAt(pattern(100_000, round), 0);
    const bytes = new Uint8Array(100_000);
    await region.readAt(bytes, 0);
    assertEquals(bytes, pattern(100_000, round));
    assertEquals(await reached, `Reached ${url} again`);
    const lost = lines.next();
    await servers.close();
    assertStringIncludes(await lost, `No connection to ${url}, dialling on: ${url} closed`);
  }
  assertEquals(lines.lines.length, 7);
  await Deno.remove(directory, { recursive: true });
});

Deno.test("a region goes on when its server dials in again", async () => {
  await using made = await pair();
  const lines = new Lines();
  const region = await made.servers.connect({ log: lines.log });
  await region.writeAt(pattern(200_000, 1), 0);
  const lost = lines.next();
  await made.out.close();
  assertStringIncludes(await lost, "Lost");
  const bytes = new Uint8Array(200_000);
  const read = region.readAt(bytes, 0);
  const found = lines.next();
  await using _again = await dialOut(made.host, made.servers.url, quiet);
  await read;
  assertEquals(bytes, pattern(200_000, 1));
  assertStringIncludes(await found, "again");
});

Deno.test("a client in a Worker waits for its server, and serves the region on", async () => {
  const directory = await Deno.makeTempDir();
  const listen = `telemap+unix:///disk?socket=${directory}/socket`;
  await using seeder = await BackendHost.start(`pattern:${SIZE}?seed=7`);
  await using _out = await dialOut(seeder, listen, { ...quiet, token: "sesame" });
  // That says on whom it waits.
  const leecher = await BackendHost.start({ listen, token: "sesame" });
  const shown = listenAt(parseAddress(`telemap+unix:///?socket=${directory}/shown`));
  await leecher.listen(shown.fd, "telemap", {
    ...{ name: "", description: "", readOnly: true, handshakeMs: 1000, maxConnections: 5 },
  });
  shown.handedOver = true;
  const region = await connectTelemap(shown.url);
  const bytes = new Uint8Array(300_000);
  await region.readAt(bytes, 1000);
  assertEquals(new Pattern(7).findDifference(bytes, 1000), -1);
  await region.close();
  await leecher.close();
  shown.cleanUp();
  assertEquals([...Deno.readDirSync(directory)], []);
  await Deno.remove(directory, { recursive: true });
});

Deno.test("a region is handed over by a seeder that dials its leecher", async () => {
  const directory = await Deno.makeTempDir();
  const listen = `telemap+unix:///disk?socket=${directory}/socket`;
  const content = pattern(SIZE, 11);
  await Deno.writeFile(`${directory}/region`, content);
  const seeder = await BackendHost.startSeeded(`file:${directory}/region`, { chunkSize: 65536 });
  const asked: string[] = [];
  const given = Promise.withResolvers<void>(), released = Promise.withResolvers<void>();
  const program = (what: string) => () => Promise.resolve(void asked.push(what));
  await seeder.seed({
    ...{ suspend: program("suspend"), resume: program("resume"), flush: program("flush") },
    throttle: program("throttle"),
  }, (stage) => {
    if (stage === "given") given.resolve();
    if (stage === "released") released.resolve();
  });
  await using _out = await dialOut(seeder, listen, { ...quiet, token: "sesame" });
  const leecher = await BackendHost.startLeeched(
    { listen, token: "sesame" },
    `file:${directory}/copy`,
    { leech: pattern(16, 1), peer: listen, chunkSize: 65536 },
  );
  await leecher.copied();
  await leecher.finalize({
    maxDowntime: 1000,
    maxTime: 10_000,
    confirm: "auto",
    strategy: "wait",
    offerMs: 5000,
  });
  await given.promise;
  assertEquals(asked.filter((what) => what !== "flush"), ["suspend"]);
  await leecher.completed();
  await released.promise;
  await leecher.close({ flushMs: 1000 });
  await seeder.close();
  assertEquals(await Deno.readFile(`${directory}/copy`), content);
  await Deno.remove(directory, { recursive: true });
});

Deno.test("a server with a wrong token, or none, is refused, and says so once", async () => {
  for (const [token, why] of [["sesam", "The token is wrong"], [undefined, "A token is needed"]]) {
    const host = await BackendHost.start("memory:1MiB");
    await using servers = acceptDialled("telemap://127.0.0.1:0/disk", {
      ...{ token: "sesame", wrongTokenMs: 20 },
    });
    const lines = new Lines();
    const first = lines.next();
    let refusals = 0;
    const harm: Harm = ({ direction }) => {
      if (direction === "down") refusals++;
      return undefined;
    };
    await using proxy = HarmfulProxy.start(servers.url, harm);
    const out = await dialOut(host, `${proxy.url}/disk`, { token, log: lines.log });
    assertStringIncludes(await first, why!);
    await until(() => refusals >= 5);
    assertEquals(lines.lines.length, 1);
    assertEquals(servers.waiting(), 0);
    await out.close();
    await host.close();
  }
});

Deno.test("a client that does not show the server's token gets nothing of the region", async () => {
  const heard = Promise.withResolvers<unknown>();
  await withListener(async (peer) => {
    assertEquals(await peer.hear(), { name: "disk", token: "sesame" });
    await peer.write(encodeReverseAnswer());
    await peer.write(encodeClientHello(clientHello({ name: "disk" })));
    heard.resolve(await peer.readServerHello());
  }, async (url) => {
    await using host = await BackendHost.start("memory:1MiB");
    await using _out = await dialOut(host, url, { ...quiet, token: "sesame" });
    assertEquals(await heard.promise, { code: ERRNO.EACCES, message: "A token is needed" });
  });
});

Deno.test("listening beyond this host takes a token, or that anybody may serve", async () => {
  const listen = (options: AcceptDialledOptions) => acceptDialled("telemap://0.0.0.0:0/x", options);
  assertThrows(() => listen({}), UsageError, "beyond this host");
  assertThrows(() => listen({ token: "" }), UsageError, "0 bytes");
  assertThrows(() => acceptDialled("nbd://127.0.0.1:0"), UsageError, "telemap://HOST");
  await listen({ token: "sesame" }).close();
  await listen({ insecure: true }).close();
});

Deno.test("what dialOut() cannot use is refused before anything is dialled", async () => {
  await using host = await BackendHost.start("memory:1MiB");
  const wrong: [string, DialOutOptions, string][] = [
    ["nbd://127.0.0.1", {}, "telemap://HOST"],
    ["telemap://127.0.0.1:0", {}, "port 0"],
    ["telemap+systemd:///", {}, "listen on"],
    ["telemap://127.0.0.1", { token: "" }, "0 bytes"],
    ["telemap://127.0.0.1", { waiting: 9 }, "9 connections"],
    ["telemap://127.0.0.1", { waiting: 0 }, "0 connections"],
    ["telemap://127.0.0.1", { handshakeMs: NaN }, "NaN ms"],
  ];
  for (const [url, options, why] of wrong) {
    await assertRejects(() => dialOut(host, url, options), UsageError, why);
  }
});

Deno.test("regions go to those who expect them, by name", async () => {
  const one = openMemory({ size: SIZE }), two = openMemory({ size: 2 * SIZE });
  const host = await BackendHost.start(one);
  await host.export(two, { name: "two", description: "", readOnly: false });
  const servers = acceptDialled("telemap://127.0.0.1:0/one", { names: ["one", "two"] });
  const at = servers.url.replace("/one", "");
  const lines = new Lines();
  const refused = lines.next();
  const outs = await Promise.all(
    ["one", "two", "three"].map((name) => dialOut(host, `${at}/${name}`, { log: lines.log })),
  );
  assertEquals((await servers.connect({ ...quiet, name: "one" })).size, SIZE);
  assertEquals((await servers.connect({ ...quiet, name: "two" })).size, 2 * SIZE);
  assertStringIncludes(await refused, 'Nobody waits for an export named "three"');
  assertThrows(() => servers.dialler("three"), RangeError);
  await servers.close();
  for (const out of outs) await out.close();
  await host.close();
});

Deno.test("a client that nobody dials says so in time, and may give up", async () => {
  const servers = acceptDialled("telemap://127.0.0.1:0/disk");
  await assertRejects(
    () => servers.dialler().dial({ timeout: 20, signal: new AbortController().signal }),
    Error,
    `Nobody dialled ${servers.url} within 20 ms`,
  );
  const giveUp = new AbortController();
  const lines = new Lines();
  const waiting = servers.connect({ signal: giveUp.signal, log: lines.log });
  assertEquals(lines.lines, [`Waiting for a server to dial ${servers.url}`]);
  giveUp.abort(new Error("enough"));
  await assertRejects(() => waiting, Error, "enough");
  const late = servers.connect(quiet);
  const failed = assertRejects(() => late, Error, "any more");
  await servers.close();
  await failed;
});

Deno.test("a region waits for its server all the time, without a pause in between", async () => {
  await using made = await pair();
  const dialler = made.servers.dialler();
  let fails = 0;
  // Pauses that grow would be a minute by then.
  const dial = (options: Parameters<typeof dialler.dial>[0]) =>
    fails-- > 0 ? Promise.reject(new DeadlineError("Nobody came")) : dialler.dial(options);
  await using region = await connectTelemap(made.servers.url, {
    ...{ ...quiet, dialler: { dial, close: () => {} } },
  });
  await region.readAt(new Uint8Array(10), 0);
  fails = 50;
  await made.out.close();
  await using _again = await dialOut(made.host, made.servers.url, quiet);
  await region.readAt(new Uint8Array(10), 0);
  assert(fails < 0);
});

Deno.test("a hello that is wrong is answered with a reason, and never waits", async () => {
  await using servers = acceptDialled("telemap://127.0.0.1:0/disk");
  const hello = encodeReverseHello({ name: "disk", token: "" });
  const changed = (at: number, value: number) => {
    const bytes = hello.slice();
    bytes[at] = value;
    return bytes;
  };
  const wrong: [Uint8Array<ArrayBuffer>, number, string][] = [
    [encodeClientHello(clientHello()), ERRNO.EPROTO, "does not speak"],
    [new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"), ERRNO.EPROTO, "does not speak"],
    [changed(11, 1), ERRNO.EPROTO, "the limit is 8192"],
    [changed(8, 15), ERRNO.EPROTO, "15 bytes"],
    [changed(8, 20), ERRNO.EPROTO, "size is wrong"],
    [changed(12, 2), ERRNO.EPROTO, "versions 1 to 1"],
    [changed(20, 0xff), ERRNO.EPROTO, "not UTF-8"],
    [encodeReverseHello({ name: "dis", token: "" }), ERRNO.ENOENT, '"dis"'],
  ];
  for (const [bytes, code, why] of wrong) {
    using peer = await ReversePeer.dialTo(servers.url);
    await peer.write(bytes);
    const answer = await peer.answer();
    assertEquals(answer?.code, code, why);
    assertStringIncludes(answer!.message, why);
    assertEquals(await peer.read(1), undefined);
  }
  assertEquals(servers.waiting(), 0);
});

Deno.test("a hello that does not come in time is not waited for", async () => {
  await using servers = acceptDialled("telemap://127.0.0.1:0/disk", { helloMs: 40 });
  for (const length of [0, 1, 16, 23]) {
    using peer = await ReversePeer.dialTo(servers.url);
    await peer.write(encodeReverseHello({ name: "disk", token: "" }).subarray(0, length));
    assertEquals(await peer.read(1), undefined);
  }
});

Deno.test("arbitrary bytes in place of a hello cost a connection, and no more", async () => {
  await using servers = acceptDialled("telemap://127.0.0.1:0/disk");
  const hello = encodeReverseHello({ name: "disk", token: "" });
  const tails = fc.uint8Array({ minLength: 1, maxLength: 100 });
  await fc.assert(
    fc.asyncProperty(tails, fc.nat(hello.length - 1), async (tail, kept) => {
      using peer = await ReversePeer.dialTo(servers.url);
      await peer.write(new Uint8Array([...hello.subarray(0, kept), ...tail]));
      await peer.conn.closeWrite();
      for (let byte = await peer.read(1); byte !== undefined; byte = await peer.read(1));
    }),
    { numRuns: 100 },
  );
  assertEquals(servers.waiting(), 0);
  using peer = await ReversePeer.dialTo(servers.url);
  await peer.say();
  assertEquals(await peer.answer(), undefined);
});

Deno.test("only so many connections wait, and only so many are at their hello", async () => {
  await using servers = acceptDialled("telemap://127.0.0.1:0/disk");
  const peers: ReversePeer[] = [];
  for (let count = 0; count < 8; count++) {
    const peer = await ReversePeer.dialTo(servers.url);
    await peer.say();
    assertEquals(await peer.answer(), undefined);
    peers.push(peer);
  }
  using more = await ReversePeer.dialTo(servers.url);
  await more.say();
  assertEquals((await more.answer())?.code, ERRNO.EBUSY);
  for (let count = 0; count < 16; count++) peers.push(await ReversePeer.dialTo(servers.url));
  // Those before are accepted in order.
  using beyond = await ReversePeer.dialTo(servers.url);
  await beyond.say().catch(() => {});
  assertEquals(await beyond.read(1), undefined);
  assertEquals(servers.waiting(), 8);
  for (const peer of peers) peer[Symbol.dispose]();
  await until(() => servers.waiting() === 0);
});

Deno.test("who is gone, or speaks out of turn, waits no more", async () => {
  await using servers = acceptDialled("telemap://127.0.0.1:0/disk");
  const wait = async () => {
    const peer = await ReversePeer.dialTo(servers.url);
    await peer.say();
    assertEquals(await peer.answer(), undefined);
    return peer;
  };
  using speaks = await wait();
  const gone = await wait();
  gone[Symbol.dispose]();
  await until(() => servers.waiting() === 1);
  await speaks.write(new Uint8Array(1));
  assertEquals(await speaks.read(1), undefined);
  assertEquals(servers.waiting(), 0);
  // What comes along with the hello is out of turn, too.
  using hasty = await ReversePeer.dialTo(servers.url);
  const hello = encodeReverseHello({ name: "disk", token: "" });
  await hasty.write(new Uint8Array([...hello, 1, 2, 3]));
  assertEquals(await hasty.answer(), undefined);
  assertEquals(await hasty.read(1), undefined);
});

Deno.test("a server that waited and is dead is left for the one behind it", async () => {
  await using made = await pair({ waiting: 1 });
  await until(() => made.servers.waiting() === 1);
  // It answers the reverse hello rightly, and nothing afterwards.
  using dead = await ReversePeer.dialTo(made.servers.url);
  await dead.say();
  assertEquals(await dead.answer(), undefined);
  await until(() => made.servers.waiting() === 2);
  const connect = () => made.servers.connect({ ...quiet, connectTimeout: 100 });
  await assertRejects(connect, Error, "did not answer the hello");
  const region = await connect();
  await region.readAt(new Uint8Array(10), 0);
});

Deno.test("a client that answers wrongly is dialled again, ever more rarely", async () => {
  const answers: Uint8Array<ArrayBuffer>[] = [
    new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n"),
    encodeReverseRefusal({ code: ERRNO.EBUSY, message: "No \x1b[31mroom" }),
    encodeReverseAnswer().subarray(0, 15) as Uint8Array<ArrayBuffer>,
    new Uint8Array(0),
  ];
  await using host = await BackendHost.start("memory:1MiB");
  for (const [index, why] of ["does not speak", "No  [31mroom", "closed", "closed"].entries()) {
    const lines = new Lines();
    const first = lines.next();
    await withListener(async (peer) => {
      await peer.hear();
      await peer.write(answers[index]!);
    }, async (url, accepted) => {
      await using _out = await dialOut(host, url, { log: lines.log });
      assertStringIncludes(await first, why);
      await until(() => accepted() >= 6);
      assertEquals(lines.lines.length, 1);
    });
  }
});

Deno.test("a client that never answers is given up, and dialled again", async () => {
  const { promise: over, resolve: end } = Promise.withResolvers<void>();
  const lines = new Lines();
  const first = lines.next();
  await withListener(() => over, async (url, accepted) => {
    await using host = await BackendHost.start("memory:1MiB");
    await using _out = await dialOut(host, url, { log: lines.log, handshakeMs: 50 });
    assertStringIncludes(await first, "did not answer the hello within 50 ms");
    await until(() => accepted() >= 5);
    end();
  });
});

Deno.test("arbitrary answers cost a connection, and no more", async () => {
  await using host = await BackendHost.start("memory:1MiB");
  const tails = fc.uint8Array({ minLength: 1, maxLength: 100 });
  await fc.assert(
    fc.asyncProperty(tails, fc.nat(15), async (tail, kept) => {
      const served = Promise.withResolvers<void>();
      await withListener(async (peer, count) => {
        await peer.hear();
        if (count < 2) {
          const right = encodeReverseAnswer().subarray(0, kept);
          return await peer.write(new Uint8Array([...right, ...tail]));
        }
        await peer.write(encodeReverseAnswer());
        assert("size" in await peer.hello({ name: "disk" }));
        served.resolve();
      }, async (url) => {
        await using _out = await dialOut(host, url, quiet);
        await served.promise;
      });
    }),
    { numRuns: 15 },
  );
});

Deno.test("a client has only so many connections at a time", async () => {
  const { promise: over, resolve: end } = Promise.withResolvers<void>();
  const drop = Promise.withResolvers<void>();
  let open = 0, most = 0;
  await withListener(async (peer, count) => {
    most = Math.max(most, ++open);
    await peer.hear();
    await peer.write(encodeReverseAnswer());
    assert("size" in await peer.hello({ name: "disk" }));
    await (count === 0 ? drop.promise : over);
    open--;
  }, async (url, accepted) => {
    await using host = await BackendHost.start("memory:1MiB");
    await using _out = await dialOut(host, url, { ...quiet, waiting: 2 });
    await until(() => open === 10);
    drop.resolve();
    await until(() => accepted() === 11);
    assertEquals(most, 10);
    end();
  });
});

Deno.test("close() ends what dials, waits and serves, at any moment", async () => {
  await using host = await BackendHost.start("memory:1MiB");
  for (const step of ["dialled", "greeted", "waiting", "taken"]) {
    const reached = Promise.withResolvers<void>();
    const gone = Promise.withResolvers<void>();
    await withListener(async (peer) => {
      if (step !== "dialled") await peer.hear();
      if (step === "waiting" || step === "taken") await peer.write(encodeReverseAnswer());
      if (step === "taken") assert("size" in await peer.hello({ name: "disk" }));
      reached.resolve();
      for (let byte = await peer.read(1); byte !== undefined; byte = await peer.read(1));
      gone.resolve();
    }, async (url) => {
      const lines = new Lines();
      const out = await dialOut(host, url, { log: lines.log });
      await reached.promise;
      await out.close();
      await gone.promise;
      assertEquals(lines.lines, []);
    });
  }
});

/** Runs a reactor in this isolate until `run` is over. */
async function withReactor(run: (reactor: Reactor) => Promise<void>): Promise<void> {
  using wake = new EventFd();
  using reactor = new Reactor(wake);
  const running = reactor.run();
  try {
    await run(reactor);
  } finally {
    reactor.stop();
    await running;
  }
}

Deno.test("an offer's controller is there for clients that dial, and for those that are dialled", () =>
  withReactor(async (reactor) => {
    await using backend = openMemory({ size: SIZE });
    using pool = new SlotPool();
    const identity = { region: pattern(16, 1), instance: pattern(16, 2) };
    const control = (message: Uint8Array) => Promise.resolve(message.toReversed());
    const offers = [{ name: "", description: "", readOnly: false, backend, identity, control }];
    const socket = listenAt(parseAddress("telemap://127.0.0.1:0"));
    const listener = new Listener(reactor, pool, {
      ...{ fd: socket.fd, protocol: "telemap", offers, handshakeMs: 1000, maxConnections: 9 },
    });
    const dials = await connectTelemap(socket.url, quiet);
    assertEquals(await dials.control(new Uint8Array([1, 2])), new Uint8Array([2, 1]));
    const servers = acceptDialled("telemap://127.0.0.1:0", { reactor });
    const outward = new Outward(reactor, pool, {
      ...{ address: parseAddress(servers.url), offers, handshakeMs: 1000, waiting: 2 },
      token: undefined,
      log: () => {},
    });
    const dialled = await servers.connect(quiet);
    for (const bulk of [false, true]) {
      const answer = await dialled.control(new Uint8Array([1, 2]), { bulk });
      assertEquals(answer, new Uint8Array([2, 1]));
    }
    await dials.close();
    await servers.close();
    await outward.close();
    await listener.close();
    assertEquals(pool.lent, 0);
  }));

Deno.test("nothing is left open when all is closed", async () => {
  /** Sockets, epoll instances and event counters; a Worker lets go of its own somewhat later. */
  const descriptors = () =>
    [...Deno.readDirSync("/proc/self/fd")].filter(({ name }) => {
      try {
        return /^(socket|anon_inode):/.test(Deno.readLinkSync(`/proc/self/fd/${name}`));
      } catch {
        return false;
      }
    }).length;
  const round = async () => {
    await using made = await pair();
    const region = await made.servers.connect(quiet);
    await region.readAt(new Uint8Array(100_000), 0);
  };
  for (let count = 0; count < 3; count++) await round();
  const before = descriptors();
  for (let count = 0; count < 8; count++) await round();
  await until(() => descriptors() < before + 8);
});

Deno.test("a message on a connection that was not taken yet ends it", async () => {
  // A frame in place of a client's hello.
  const ended = Promise.withResolvers<void>();
  await withListener(async (peer) => {
    await peer.hear();
    await peer.write(encodeReverseAnswer());
    await peer.send({ type: TYPE.READ, id: 1, length: 10, flags: FEATURE.CRC32 });
    const refusal = await peer.readServerHello();
    assert("code" in refusal && refusal.code === ERRNO.EPROTO);
    assertEquals(await peer.read(1), undefined);
    ended.resolve();
  }, async (url) => {
    await using host = await BackendHost.start("memory:1MiB");
    await using _out = await dialOut(host, url, quiet);
    await ended.promise;
  });
});
