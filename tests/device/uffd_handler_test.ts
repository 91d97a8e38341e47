/**
 * `telemap uffd` pages in the memory of C programs, which do as Firecracker does, and of whoever
 * sends something else than it should.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { close } from "../../ffi/file.ts";
import { openLibc } from "../../ffi/libc.ts";
import { memfdCreate } from "../../ffi/mman.ts";
import { connectUnix, shutdown } from "../../ffi/socket.ts";
import { sendDescriptors } from "../../ffi/socket_message.ts";
import { openUserfault, UFFD_FEATURE } from "../../ffi/userfault_open.ts";
import { serve, serveUserfault, type UserfaultClientEvent } from "../../mod.ts";
import { withReason } from "../requires.ts";
import { telemap, TelemapProcess } from "../telemap_process.ts";
import { temporaryDirectory, until } from "./command.ts";
import { readBy } from "./read_by.ts";
import { CLIENT_NEEDS, compileClient, LineProcess } from "./uffd_client.ts";

openLibc();

const PAGE = 4096;
const SIZE = 1024 * PAGE;
const HALF = SIZE / 2;
const USERFAULT = "anon_inode:[userfaultfd]";

/** The userfaultfds, and what was taken for one, that a handler has open. */
async function userfaultsOf({ pid }: TelemapProcess): Promise<string[]> {
  const links: string[] = [];
  for await (const { name } of Deno.readDir(`/proc/${pid}/fd`)) {
    links.push(await Deno.readLink(`/proc/${pid}/fd/${name}`).catch(() => ""));
  }
  return links.filter((link) => /userfault/.test(link));
}

/** A file with zeroes in it here and there, a compiled client, and where the socket goes. */
class Stage implements AsyncDisposable {
  readonly directory = temporaryDirectory();
  readonly socket = `${this.directory.path}/socket`;
  readonly file = `${this.directory.path}/file`;
  client = "";
  readonly #processes: AsyncDisposable[] = [];

  static async set(): Promise<Stage> {
    const stage = new Stage();
    const content = new Uint8Array(SIZE);
    for (let at = 0; at < SIZE; at += 65536) {
      crypto.getRandomValues(content.subarray(at, at + 65536));
    }
    for (let page = 5; page < SIZE / PAGE; page += 11) {
      content.fill(0, page * PAGE, (page + 1) * PAGE);
    }
    await Deno.writeFile(stage.file, content);
    stage.client = await compileClient(stage.directory.path);
    return stage;
  }

  /** A handler that listens. */
  async handler(backend = `file:${this.file}`, ...options: string[]): Promise<TelemapProcess> {
    const args = ["uffd", backend, "--socket", this.socket, "--json", ...options];
    const handler = new TelemapProcess(args);
    this.#processes.push(handler);
    assertEquals(await handler.next(), { event: "listening", socket: this.socket, size: SIZE });
    return handler;
  }

  /** A client that handed over. */
  async attach(regions = 1, policy = "wait"): Promise<LineProcess> {
    const client = new LineProcess(this.client, [this.socket, this.file, `${regions}`, policy]);
    this.#processes.push(client);
    assertEquals(await client.next(), "attached");
    return client;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const process of this.#processes) await process[Symbol.asyncDispose]();
    this.directory[Symbol.dispose]();
  }
}

function test(name: string, fn: (stage: Stage) => Promise<void>): void {
  Deno.test({
    name: withReason(name, CLIENT_NEEDS),
    ignore: CLIENT_NEEDS.ignore,
    async fn() {
      await using stage = await Stage.set();
      await fn(stage);
    },
  });
}

test("a client's regions are paged in, and what it drops is zeroes", async (stage) => {
  const handler = await stage.handler();
  assertEquals((await Deno.stat(stage.socket)).mode! & 0o777, 0o600);
  const client = await stage.attach(3);
  assertEquals(await handler.next(), {
    event: "attached",
    client: 1,
    pid: client.pid,
    regions: 3,
    bytes: SIZE,
  });
  assertEquals(await client.ask(`check 0 ${HALF} 1`), "equal");
  assertEquals(await client.ask(`check ${HALF} ${HALF} 37`), "equal");
  assertEquals(await client.ask(`drop ${10 * PAGE} ${20 * PAGE}`), "dropped");
  assertEquals(await client.ask(`zeroes ${10 * PAGE} ${20 * PAGE}`), "zeroes");
  assertEquals(await client.ask(`check 0 ${10 * PAGE} 1`), "equal");
  assertEquals(await client.ask(`check ${30 * PAGE} ${SIZE - 30 * PAGE} 1`), "equal");
  assertEquals(await client.ask(`write ${30 * PAGE}`), "written");
  assertEquals((await client.end()).code, 0);
  const { statistics, ...detached } = await handler.next();
  assertEquals(detached, {
    event: "detached",
    client: 1,
    pid: client.pid,
    reason: "its connection ended",
  });
  const { faults, copiedPages, zeroPages } = statistics as Record<string, number>;
  assert(faults! > 0 && faults! < SIZE / PAGE, `${faults} faults`);
  assertEquals(copiedPages! + zeroPages!, SIZE / PAGE + 20);
  handler.kill("SIGTERM");
  assertEquals(await handler.end(), { code: 0, events: [{ event: "closed" }], err: "" });
  assertEquals([...Deno.readDirSync(stage.directory.path)].map(({ name }) => name).sort(), [
    "file",
    "uffd_client",
  ]);
});

test("pages that were dropped before they were there are zeroes too", async (stage) => {
  await stage.handler();
  const client = await stage.attach();
  assertEquals(await client.ask(`drop ${PAGE} ${100 * PAGE}`), "dropped");
  assertEquals(await client.ask(`check 0 ${PAGE} 1`), "equal");
  assertEquals(await client.ask(`zeroes ${PAGE} ${100 * PAGE}`), "zeroes");
});

test("clients are served side by side, and outlive each other", async (stage) => {
  const handler = await stage.handler(`file:${stage.file}`, "--fault-around", "4KiB");
  const clients = [await stage.attach(1), await stage.attach(4)];
  const strides = [3, 101];
  const answers = clients.map((client, index) => client.ask(`check 0 ${HALF} ${strides[index]}`));
  assertEquals(await Promise.all(answers), ["equal", "equal"]);
  await clients[0]!.end();
  const events = [await handler.next(), await handler.next(), await handler.next()];
  assertEquals(events.map(({ event, client }) => [event, client]), [
    ["attached", 1],
    ["attached", 2],
    ["detached", 1],
  ]);
  assertEquals(await userfaultsOf(handler), [USERFAULT]);
  assertEquals(await clients[1]!.ask(`check 0 ${SIZE} 7`), "equal");
});

test("a client waits through kill -9 of its handler, with faults that this one had read", async (stage) => {
  const before = await stage.handler();
  const client = await stage.attach(2);
  assertEquals(await client.ask(`check 0 ${PAGE} 1`), "equal");
  before.kill("SIGKILL");
  assertEquals(await client.next(), "lost");
  const url = `telemap+unix:///?socket=${stage.directory.path}/backend`;
  const asked = Promise.withResolvers<void>(), over = Promise.withResolvers<void>();
  const silentBackend = readBy(SIZE, () => {
    asked.resolve();
    return over.promise;
  });
  await using _server = await serve(silentBackend, url);
  const silent = await stage.handler(url);
  assertEquals(await client.next(), "attached");
  await client.send(`check 0 ${SIZE} 5`);
  await asked.promise;
  silent.kill("SIGKILL");
  assertEquals(await client.next(), "lost");
  const after = await stage.handler();
  assertEquals([await client.next(), await client.next()], ["attached", "equal"]);
  after.kill("SIGTERM");
  assertEquals(await client.next(), "lost");
  const last = await after.end();
  assertEquals(last.events.at(-2)?.["reason"], "the handler was closed");
  over.resolve();
});

test("a client that poisons gets SIGBUS for what is missing when its handler is killed", async (stage) => {
  const handler = await stage.handler();
  const client = await stage.attach(1, "poison");
  assertEquals(await client.ask(`check 0 ${PAGE} 1`), "equal");
  handler.kill("SIGKILL");
  assertEquals([await client.next(), await client.next()], ["lost", "poisoned"]);
  assertEquals(await client.ask(`check 0 ${PAGE} 1`), "equal");
  assertEquals(await client.ask(`check ${HALF} ${PAGE} 1`), "SIGBUS");
});

test("what a handler's region fails to give is poisoned where that was asked for", async (stage) => {
  const socket = `${stage.directory.path}/failing`;
  const backend = readBy(SIZE, () => Promise.reject(new Error("the disk is gone")));
  await using _handler = await serveUserfault(backend, { socket, onLoss: "poison", lossMs: 1 });
  await using client = new LineProcess(stage.client, [socket, stage.file, "1", "wait"]);
  assertEquals(await client.next(), "attached");
  assertEquals(await client.ask(`check 0 ${PAGE} 1`), "SIGBUS");
});

const encoder = new TextEncoder();

function described(region: Record<string, unknown>, count = 1): string {
  const whole = { base_host_virt_addr: 1 << 30, size: PAGE, offset: 0, page_size: PAGE, ...region };
  return JSON.stringify(Array<unknown>(count).fill(whole));
}

/** A descriptor: a userfaultfd, one that tells of forks too, or another one. */
type Kind = "uffd" | "forking" | "memfd";

/** What a client should not send: its bytes, the descriptors with them, and what is said of it. */
const REFUSED: [string, string | Uint8Array, Kind[], RegExp][] = [
  ["garbage", new Uint8Array(1000).fill(0xff), ["uffd"], /not an array/],
  ["no descriptor", described({}), [], /No userfaultfd came/],
  ["a descriptor of another kind", described({}), ["memfd"], /memfd.*no userfaultfd/],
  ["two descriptors", described({}), ["uffd", "uffd"], /more than one descriptor/],
  ["a userfaultfd that tells of forks", described({}), ["forking"], /not followed: EVENT_FORK/],
  ["nothing", "", [], /without a word/],
  ["part of a description", described({}).slice(0, -9), ["uffd"], /before .* complete/],
  ["something behind its description", `${described({})}{`, ["uffd"], /behind its end/],
  ["too many regions", described({}, 1025), ["uffd"], /1025 regions/],
  ["too long a description", " ".repeat(1 << 20), [], /longer than/],
  ["a region behind the backend", described({ offset: SIZE }), ["uffd"], /offset 4194304/],
  ["a region over the backend's end", described({ size: SIZE + PAGE }), ["uffd"], /ends at offset/],
  ["half a page", described({ size: 2048 }), ["uffd"], /not whole pages/],
];

function descriptorOf(kind: Kind): number {
  if (kind === "memfd") return memfdCreate("no-userfault");
  return openUserfault({ required: kind === "forking" ? UFFD_FEATURE.EVENT_FORK : 0 }).fd;
}

/** Sends what it is told, says that nothing more follows, and goes away. */
async function send(socket: string, bytes: Uint8Array, descriptors: number[]): Promise<void> {
  if (descriptors.length === 0) {
    using conn = await Deno.connect({ transport: "unix", path: socket });
    // The handler may hang up before it has read all of it.
    for (let at = 0; at < bytes.length;) {
      at += await conn.write(bytes.subarray(at)).catch(() => NaN);
    }
    return;
  }
  const fd = connectUnix(socket);
  assertEquals(sendDescriptors(fd, bytes, descriptors), bytes.length);
  [...descriptors].forEach(close);
  shutdown(fd);
  close(fd);
}

test("what clients should not send is refused, and the handler goes on", async (stage) => {
  const handler = await stage.handler();
  const client = await stage.attach();
  assertEquals((await handler.next())["event"], "attached");
  for (const [name, sent, kinds, expected] of REFUSED) {
    const bytes = typeof sent === "string" ? encoder.encode(sent) : sent;
    await send(stage.socket, bytes, kinds.map(descriptorOf));
    const { event, pid, reason } = await handler.next();
    assertEquals({ name, event, pid }, { name, event: "refused", pid: Deno.pid });
    assertMatch(`${reason}`, expected);
  }
  assertEquals(await client.ask(`check 0 ${SIZE} 1`), "equal");
  assertEquals(await userfaultsOf(handler), [USERFAULT]);
});

test("a client that says nothing, and one too many, are sent away", async (stage) => {
  const events: UserfaultClientEvent[] = [];
  const { socket } = stage;
  await using _handler = await serveUserfault(`file:${stage.file}`, {
    socket,
    handshakeMs: 20,
    maxClients: 1,
    onClient: (event) => events.push(event),
  });
  {
    using conn = await Deno.connect({ transport: "unix", path: socket });
    const answer = new Uint8Array(1000);
    const length = await conn.read(answer);
    const text = new TextDecoder().decode(answer.subarray(0, length ?? 0));
    assertEquals(JSON.parse(text), {
      answer: "refused",
      reason: "The client did not describe its memory within 0.02 s",
    });
    assertEquals(await conn.read(answer), null);
  }
  const client = await stage.attach();
  await until(() => events.length === 2, "the client to be attached");
  using _late = await Deno.connect({ transport: "unix", path: socket });
  await until(() => events.length === 3, "the client to be refused");
  const told = events.map((event) => event.event === "refused" ? event.reason : event.event);
  assertEquals(told.slice(1), ["attached", "there are 1 clients already"]);
  assertEquals(await client.ask(`check 0 ${SIZE} 1`), "equal");
});

test("wrong use of the handler is one line", async (stage) => {
  const { socket } = stage;
  await stage.handler();
  const wrong: [number, string[], RegExp][] = [
    [2, [], /--socket PATH is missing/],
    [2, ["--socket", "x", "--fault-around", "1000"], /1000 bytes a fault/],
    [2, ["--socket", "x", "--on-loss", "panic"], /wait, poison/],
    [1, ["--socket", socket], /EADDRINUSE.*something is there already/],
    [1, ["--socket", "/no/such/directory/socket"], /ENOENT/],
  ];
  await Promise.all(wrong.map(async ([code, args, expected]) => {
    const outcome = await telemap(["uffd", "memory:1MiB", ...args]);
    assertEquals({ args, code: outcome.code, out: outcome.out }, { args, code, out: "" });
    assertMatch(outcome.err, /^telemap: [^\n]+$/);
    assertMatch(outcome.err, expected);
  }));
});
