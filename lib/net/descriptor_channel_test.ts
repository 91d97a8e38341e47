import { assert, assertEquals } from "@std/assert";
import { EPOLL, Epoll, EventFd } from "../../ffi/epoll.ts";
import { ERRNO, errno } from "../../ffi/errno.ts";
import { close, Iovec } from "../../ffi/file.ts";
import { openLibc } from "../../ffi/libc.ts";
import { Mapping } from "../../ffi/mman.ts";
import {
  accept,
  connectTcp,
  listenTcp,
  listenUnix,
  readv,
  socketpair,
  writev,
} from "../../ffi/socket.ts";
import type { Channel, Protocol } from "./channel.ts";
import { DescriptorChannel } from "./descriptor_channel.ts";
import { Reactor } from "./reactor.ts";
import { SlotPool } from "./slot_pool.ts";

openLibc();

const MIB = 1 << 20;

/** A plain descriptor, as the peer of a channel. */
class Peer implements Disposable {
  readonly #fd: number;
  readonly #memory = Mapping.map({ length: MIB });
  readonly #iovec = new Iovec(1);
  #gone = false;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Writes as much of some text as the other end takes; answers how much. */
  write(text: string): number {
    const bytes = new TextEncoder().encode(text);
    this.#memory.bytes.set(bytes);
    this.#iovec.set(0, this.#memory.address, bytes.length);
    return writev(this.#fd, this.#iovec, 1);
  }

  /** Reads so much text, or until the other end closes, or until so many ms are over. */
  async read(
    length = Infinity,
    milliseconds = 30_000,
  ): Promise<{ text: string; ended: boolean; reset: boolean }> {
    let text = "";
    const until = performance.now() + milliseconds;
    while (text.length < length && performance.now() < until) {
      this.#iovec.set(0, this.#memory.address, MIB);
      const count = readv(this.#fd, this.#iovec, 1);
      if (count === 0) return { text, ended: true, reset: false };
      if (count > 0) text += new TextDecoder().decode(this.#memory.bytes.slice(0, count));
      else if (errno() === ERRNO.ECONNRESET) return { text, ended: true, reset: true };
      else await new Promise((resolve) => setTimeout(resolve, 2));
    }
    return { text, ended: false, reset: false };
  }

  hangUp(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#memory.unmap();
    close(this.#fd);
  }

  [Symbol.dispose](): void {
    this.hangUp();
  }
}

/** Answers each byte by what `answer` does, and notes what happens. */
class Echo implements Protocol {
  readonly log: string[] = [];
  readonly over = Promise.withResolvers<void>();
  /** It has no room for more answers. */
  readonly full = Promise.withResolvers<void>();
  /** Bytes that it answered. */
  count = 0;
  readonly #channel: Channel;
  readonly #answer: (channel: Channel, byte: string) => void;
  #expected: { count: number; resolve: () => void } | undefined;

  constructor(channel: Channel, answer: (channel: Channel, byte: string) => void = echo) {
    this.#channel = channel;
    this.#answer = answer;
  }

  /** Answers when it has answered so many bytes. */
  answered(count: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#expected = { count, resolve };
    return promise;
  }

  receive(): void {
    const channel = this.#channel;
    while (channel.start < channel.end) {
      if (!channel.hasRoom()) return this.full.resolve();
      const byte = String.fromCharCode(channel.input[channel.start]!);
      channel.consume(1);
      this.count++;
      this.#answer(channel, byte);
    }
    if (this.#expected !== undefined && this.count >= this.#expected.count) {
      this.#expected.resolve();
    }
  }

  drained(): void {
    this.log.push("drained");
    this.receive();
  }

  closed(error?: Error): void {
    this.log.push(`closed${error === undefined ? "" : `: ${error.message}`}`);
    this.over.resolve();
  }
}

function echo(channel: Channel, byte: string): void {
  const at = channel.reserve(1);
  channel.outputView.setUint8(at, byte.charCodeAt(0));
}

interface World {
  reactor: Reactor;
  pool: SlotPool;
  /** A channel that has this descriptor, or one end of a socket pair, and its peer. */
  connect(
    answer?: (channel: Channel, byte: string) => void,
    lingerMs?: number,
    ends?: [number, number],
  ): { channel: DescriptorChannel; echo: Echo; peer: Peer };
}

function test(what: string, run: (world: World) => Promise<void>): void {
  Deno.test(`DescriptorChannel ${what}`, async () => {
    using wake = new EventFd();
    using reactor = new Reactor(wake);
    using pool = new SlotPool();
    using peers = new DisposableStack();
    const running = reactor.run();
    const connect: World["connect"] = (answer, lingerMs, ends = socketpair()) => {
      const channel = new DescriptorChannel(reactor, pool, ends[0], lingerMs);
      const echo = new Echo(channel, answer);
      channel.attach(echo);
      return { channel, echo, peer: peers.use(new Peer(ends[1])) };
    };
    try {
      await run({ reactor, pool, connect });
    } finally {
      reactor.stop();
      await running;
    }
    assertEquals(pool.lent, 0);
  });
}

test("answers, and closes when the peer does", async ({ connect }) => {
  const { echo, peer } = connect();
  peer.write("hello");
  assertEquals((await peer.read(5)).text, "hello");
  peer.hangUp();
  await echo.over.promise;
  assertEquals(echo.log, ["closed"]);
});

test("sends what was queued before it closes", async ({ connect }) => {
  const { echo: protocol, peer } = connect((channel, byte) => {
    echo(channel, byte);
    if (byte === "q") channel.close();
  });
  peer.write("abcq");
  assertEquals(await peer.read(), { text: "abcq", ended: true, reset: false });
  assertEquals(protocol.log, ["closed"]);
});

const FILL = "x".repeat(100_000);

/** Queues a copy of a long text for each byte. */
function answerLong(channel: Channel, byte: string): void {
  channel.queueCopy(new TextEncoder().encode(byte.repeat(100_000)));
}

test("waits for a slow peer when it closes", async ({ connect }) => {
  const { channel, echo, peer } = connect(answerLong);
  peer.write("abcdefghijklmnopqrstuvwxyz");
  await echo.answered(26);
  channel.close();
  assertEquals(echo.log, []);
  const { text, ended } = await peer.read();
  assert(ended);
  assertEquals(text.length, 26 * FILL.length);
  assertEquals(echo.log, ["closed"]);
});

test("waits for a peer that reads nothing no longer than its time", async ({ connect }) => {
  const { channel, echo, peer } = connect(answerLong, 30);
  peer.write("abcdefghijklmnopqrstuvwxyz");
  await echo.answered(26);
  const began = performance.now();
  channel.close();
  await echo.over.promise;
  assert(performance.now() - began >= 29);
});

test("drops at once what a peer that is gone did not read", async ({ connect }) => {
  const { echo, peer } = connect(answerLong, 60_000);
  peer.write("abcdefghijklmnopqrstuvwxyz");
  await echo.answered(26);
  peer.hangUp();
  await echo.over.promise;
  assertEquals(echo.log, ["closed"]);
});

test("takes no more from a peer that takes no answers, then goes on", async ({ connect }) => {
  const { echo, peer } = connect(answerLong);
  const written = 150;
  peer.write("y".repeat(written));
  await Promise.race([echo.full.promise, echo.answered(written)]);
  assertEquals(echo.log, []);
  assert(echo.count < written - 10, `${echo.count} were answered`);
  const { text } = await peer.read(written * FILL.length);
  assertEquals(text.length, written * FILL.length);
  assert(echo.log.includes("drained"));
});

test("keeps the failure of one connection from others", async ({ connect }) => {
  const { echo: failing, peer } = connect(() => {
    throw new RangeError("No such byte");
  });
  const other = connect();
  peer.write("a");
  await failing.over.promise;
  assertEquals(failing.log, ["closed: No such byte"]);
  other.peer.write("hello");
  assertEquals((await other.peer.read(5)).text, "hello");
});

test("closes rather than tear an answer that has no room", async ({ connect, pool }) => {
  const { echo, peer } = connect((channel) => {
    for (let index = 0; index < 5000; index++) channel.queueCopy(new Uint8Array(100_000));
  });
  peer.write("a");
  await echo.over.promise;
  assertEquals(echo.log, ["closed: Cannot queue more replies than a channel holds"]);
  assertEquals(pool.lent, 0);
});

test("is closed while something asynchronous is in flight, which ends later", async (world) => {
  const { channel, echo, peer } = world.connect();
  const slot = channel.acquire(5000);
  channel.beginAsync();
  channel.close();
  await echo.over.promise;
  assertEquals(channel.hasRoom(), false);
  channel.endAsync();
  channel.queueSlot(slot, 5000);
  channel.resume();
  channel.flush();
  channel.close();
  assertEquals((await peer.read()).ended, true);
});

test("finds a peer gone that asks for room only", async ({ connect }) => {
  const { channel, echo, peer } = connect(answerLong);
  peer.write("abcdefghijklmnopqrstuvwxyz".repeat(4));
  await echo.full.promise;
  peer.hangUp();
  assertEquals(channel.hasRoom(), false);
  assertEquals(echo.log, ["closed"]);
  await echo.over.promise;
});

test("reads nothing while it is paused", async ({ connect }) => {
  const { channel, peer } = connect();
  channel.pause();
  peer.write("hello");
  assertEquals((await peer.read(1, 50)).text, "");
  channel.resume();
  assertEquals((await peer.read(5)).text, "hello");
});

test("tells whether its peer is behind with reading, and with how many answers", async (world) => {
  const { echo, peer } = world.connect();
  let unhurried = 0;
  world.reactor.unhurried = () => void unhurried++;
  // One at a time, each with an answer of its own.
  for (let sent = 1; sent <= 32; sent++) {
    const answered = echo.answered(sent);
    peer.write("a");
    await answered;
    if (sent <= 4) assertEquals(unhurried, 0);
  }
  assert(unhurried >= 16, `told ${unhurried} times`);
  assertEquals((await peer.read(32)).text, "a".repeat(32));
  const told = unhurried;
  peer.write("a");
  assertEquals((await peer.read(1)).text, "a");
  assertEquals(unhurried, told);
});

Deno.test("DescriptorChannel answers a peer that will say no more", async () => {
  using wake = new EventFd();
  using reactor = new Reactor(wake);
  using pool = new SlotPool();
  const directory = Deno.makeTempDirSync();
  const listening = listenUnix(`${directory}/socket`);
  using conn = await Deno.connect({ transport: "unix", path: `${directory}/socket` });
  await conn.write(new TextEncoder().encode("abcdefghijklmnopqrstuvwxyz"));
  await conn.closeWrite();
  const channel = new DescriptorChannel(reactor, pool, accept(listening));
  const protocol = new Echo(channel, answerLong);
  channel.attach(protocol);
  const running = reactor.run();
  let length = 0;
  for await (const bytes of conn.readable) length += bytes.length;
  assertEquals(length, 26 * FILL.length);
  await protocol.over.promise;
  reactor.stop();
  await running;
  close(listening);
  Deno.removeSync(directory, { recursive: true });
});

/** The two ends of a TCP connection. */
async function tcpPair(): Promise<[number, number]> {
  const { fd, port } = listenTcp("127.0.0.1", 0);
  const client = connectTcp("127.0.0.1", port);
  let server = -1;
  while ((server = accept(fd)) < 0) await new Promise((resolve) => setTimeout(resolve, 1));
  close(fd);
  return [server, client];
}

test("survives a reset", async ({ connect }) => {
  const { echo, peer } = connect(answerLong, undefined, await tcpPair());
  peer.write("abc");
  await echo.answered(3);
  // Closing with answers unread makes TCP send a reset.
  peer.hangUp();
  await echo.over.promise;
  assertEquals(echo.log, ["closed"]);
});

test("loses no answer over TCP where it leaves requests unread", async ({ connect }) => {
  const ends = await tcpPair();
  const { channel, echo, peer } = connect(answerLong, undefined, ends);
  peer.write("abc");
  await echo.answered(3);
  channel.pause();
  peer.write("never answered");
  using arrival = new Epoll();
  arrival.add(ends[0], EPOLL.IN);
  assertEquals(await arrival.waitAsync(30_000), 1);
  channel.close();
  const { text, ended, reset } = await peer.read();
  assertEquals([text.length, ended, reset], [3 * FILL.length, true, false]);
});

test("hands over to another protocol, which has what was not consumed", async ({ connect }) => {
  let second: Echo | undefined;
  const { peer } = connect((channel, byte) => {
    echo(channel, byte.toUpperCase());
    if (byte !== "!") return;
    second = new Echo(channel);
    channel.handOver(second);
    second.receive();
  });
  peer.write("ab!cd");
  assertEquals((await peer.read(5)).text, "AB!cd");
  peer.write("ef");
  assertEquals((await peer.read(2)).text, "ef");
});
