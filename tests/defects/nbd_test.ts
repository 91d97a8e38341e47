/**
 * What the server and the client of the NBD protocol promise, and what implementations of such mounts
 * are known to break: failures that end a connection, or nobody hears of, and flushes that get lost.
 */
import { assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { ClosedError, ConnectionError, DeadlineError } from "../../lib/backend/errors.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { serve } from "../../lib/host/serve.ts";
import { openExport } from "../../lib/nbd/client_open.ts";
import { parseAddress } from "../../lib/net/address.ts";
import { assertBytes, pattern } from "../backend_model.ts";
import { infoData, RawClient, viewOf } from "../nbd/raw_client.ts";
import { fakeBackend, testOn } from "../nbd/served.ts";
import { settle } from "../gate.ts";
import { type Peer, ScriptedNbdServer } from "../scripted_nbd_server.ts";
import { inTime } from "../in_time.ts";

openLibc();

const READ = 0, WRITE = 1, FLUSH = 3;
const FUA = 1;
const SIZE = 1 << 20, LENGTH = 4096;

testOn("memory: a hole is zeroes, whatever the connection carried before", () => {
  const memory = openMemory({ size: SIZE });
  memory.writeAt(pattern(LENGTH, 1), 0);
  return memory;
}, async ({ connect }) => {
  for (const structured of [false, true]) {
    const client = await RawClient.go(connect(), { structured });
    const read = (at: number) => {
      return structured ? client.readStructured(at, LENGTH) : client.read(at, LENGTH);
    };
    for (const at of [LENGTH, 8 * LENGTH, SIZE - LENGTH]) {
      assertBytes(await read(0), pattern(LENGTH, 1), "What was written");
      assertBytes(await read(at), new Uint8Array(LENGTH), `The hole at ${at}`);
    }
  }
});

/** What stores throw when something of theirs is gone, which is not the connection to the client. */
const GONE: Record<string, Error> = {
  "the end of a file": new Deno.errors.UnexpectedEof("unexpected EOF"),
  "a reset": Object.assign(new Error("read: connection reset"), { code: "ECONNRESET" }),
  "a broken pipe": new Deno.errors.BrokenPipe("write: broken pipe"),
  "a deadline": new DeadlineError("read: connection timed out"),
  "a lost connection": new ConnectionError("The server is gone"),
  "being closed": new ClosedError("It was closed"),
};
for (const [what, error] of Object.entries(GONE)) {
  for (const later of [false, true]) {
    const fail = () => {
      if (!later) throw error;
      return Promise.reject(error);
    };
    testOn(
      `a store that fails by ${what} ${later ? "later" : "at once"}: it is told, and served on`,
      () =>
        fakeBackend({
          size: SIZE,
          writesAtOnce: !later,
          readAt: (buffer, offset) => offset === 0 ? void buffer.fill(7) : fail(),
          writeAt: (_, offset) => offset === 0 ? undefined : fail(),
          flush: fail,
        }),
      async ({ connect }) => {
        const client = await RawClient.go(connect());
        const failing = [
          { command: READ, offset: 1n, length: 100 },
          { command: WRITE, offset: 1n, payload: new Uint8Array(100) },
          { command: FLUSH },
        ];
        for (const request of failing) {
          assertEquals(await client.error(request) > 0, true, `Request ${request.command}`);
          assertEquals(await client.read(0, 3), new Uint8Array([7, 7, 7]));
          assertEquals(await client.error({ command: WRITE, payload: new Uint8Array(3) }), 0);
        }
      },
    );
  }
}

const SEND_FLUSH = 1 << 2, SEND_FUA = 1 << 3;
const flushes = {
  asked: Promise.withResolvers<void>(),
  answer: Promise.withResolvers<void>(),
};
testOn(
  "a store whose flush takes long: FLUSH and FUA are offered, and answered behind it",
  () =>
    fakeBackend({
      size: SIZE,
      flush: () => {
        flushes.asked.resolve();
        return flushes.answer.promise;
      },
    }),
  async ({ connect }) => {
    const asking = await RawClient.greet(connect());
    const info = (await asking.ask(6, infoData(""))).find(({ data }) => data.length === 12)!;
    const flags = viewOf(info.data).getUint16(10);
    assertEquals(flags & (SEND_FLUSH | SEND_FUA), SEND_FLUSH | SEND_FUA);
    const client = await RawClient.go(connect());
    for (
      const request of [{ command: FLUSH }, { command: WRITE, flags: FUA, payload: pattern(9, 2) }]
    ) {
      flushes.asked = Promise.withResolvers();
      flushes.answer = Promise.withResolvers();
      const before = client.wire.receivedBytes;
      client.send(request);
      await flushes.asked.promise;
      await settle();
      assertEquals(client.wire.receivedBytes, before, "Nothing is answered before");
      flushes.answer.resolve();
      assertEquals((await client.simple()).error, 0);
    }
  },
);

Deno.test("closing a server waits until its store has flushed", async () => {
  const asked = Promise.withResolvers<void>(), answer = Promise.withResolvers<void>();
  const flush = () => {
    asked.resolve();
    return answer.promise;
  };
  const server = await serve(fakeBackend({ size: SIZE, flush }), "nbd://127.0.0.1:0");
  let closed = false;
  const closing = server.close().then(() => closed = true);
  await asked.promise;
  await settle();
  assertEquals(closed, false);
  answer.resolve();
  await closing;
});

Deno.test("opening fails where a server hangs up, or says nothing for too long", async () => {
  const scripts: [
    (peer: Peer) => Promise<void>,
    number,
    typeof ConnectionError | typeof DeadlineError,
  ][] = [
    [(peer) => peer.greet(), 60_000, ConnectionError],
    [(peer) => peer.gone(), 50, DeadlineError],
  ];
  for (const [script, timeout, ErrorClass] of scripts) {
    await using server = new ScriptedNbdServer(script);
    const ended = new AbortController();
    const opening = openExport(parseAddress(server.url), timeout, ended.signal);
    try {
      await assertRejects(() => inTime(opening), ErrorClass);
    } finally {
      ended.abort();
    }
  }
});
