/** Messages to the controller of an export: both sides right, wrong, slow, lost, and of old. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { ERRNO } from "../../ffi/errno.ts";
import { openLibc } from "../../ffi/libc.ts";
import {
  ClosedError,
  DeadlineError,
  IntegrityError,
  ProtocolError,
  RemoteError,
  TelemapError,
  UnsupportedError,
} from "../../lib/backend/errors.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import {
  connectTelemap,
  type ConnectTelemapOptions,
  type RemoteBackend,
} from "../../lib/rpc/client.ts";
import type { Controller } from "../../lib/rpc/export.ts";
import {
  decodeMessage,
  FEATURE,
  type Frame,
  HEADER_BYTES,
  LIMIT,
  REPLY,
  TYPE,
} from "../../lib/rpc/wire.ts";
import { pattern } from "../backend_model.ts";
import { type Harm, HarmfulProxy } from "./harmful_proxy.ts";
import { frameBytes, WirePeer } from "./wire_peer.ts";
import { TestWireServer, type TestWireServerOptions } from "./wire_server.ts";

openLibc();

const SIZE = 1 << 20;
const QUIET: ConnectTelemapOptions = { log: () => {} };
/** Bytes that a client and a server say before the first frame. */
const CLIENT_HELLO = 56, SERVER_HELLO = 80;
const ALL = FEATURE.CRC32 | FEATURE.ZSTD | FEATURE.CONTROL;

/** Says what it was told, with its bytes in reverse. */
const reverse: Controller = (message) => Promise.resolve(message.toReversed());

/** Keeps messages until a test answers them. */
class HeldController {
  readonly held: { message: Uint8Array; answer: PromiseWithResolvers<Uint8Array> }[] = [];
  /** Messages that came so far. */
  count = 0;
  #waiting: { count: number; resolve: () => void }[] = [];

  readonly control: Controller = (message) => {
    const answer = Promise.withResolvers<Uint8Array>();
    this.held.push({ message, answer });
    this.count++;
    this.#waiting = this.#waiting.filter(({ count, resolve }) => {
      if (this.count >= count) resolve();
      return this.count < count;
    });
    return answer.promise;
  };

  /** Answers when so many messages came. */
  came(count: number): Promise<void> {
    if (this.count >= count) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ count, resolve }));
  }

  /** Answers the message held for the longest time with itself. */
  echo(): void {
    const { message, answer } = this.held.shift()!;
    answer.resolve(message);
  }
}

async function withControl(
  control: Controller,
  run: (region: RemoteBackend, server: TestWireServer) => Promise<void>,
  options: ConnectTelemapOptions & Partial<TestWireServerOptions> = {},
): Promise<void> {
  await using backend = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ ...options, backend, control });
  await using region = await connectTelemap(server.url, { ...QUIET, ...options });
  await run(region, server);
}

/** Runs a test with a client and a server, and a proxy between them that does harm. */
async function withHarm(
  harm: Harm,
  control: Controller,
  run: (region: RemoteBackend) => Promise<void>,
): Promise<void> {
  await using backend = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend, control });
  await using proxy = HarmfulProxy.start(server.url, harm);
  await using region = await connectTelemap(proxy.url, QUIET);
  await run(region);
}

/** A client of raw frames that said hello to a server with a controller. */
async function withPeer(
  control: Controller | undefined,
  run: (peer: WirePeer) => Promise<void>,
  features: number = ALL,
): Promise<void> {
  await using backend = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend, ...(control && { control }) });
  using peer = await WirePeer.dial(server.url);
  const hello = await peer.hello({ features });
  assert("features" in hello);
  assertEquals(hello.features, control === undefined ? features & ~FEATURE.CONTROL : features);
  await run(peer);
}

Deno.test("messages of any size go there, and answers come back, on both lanes", () =>
  withControl(reverse, async (region) => {
    const lengths = [0, 1, 40, 16384, 16385, LIMIT.CONTROL];
    await Promise.all([false, true].flatMap((bulk) =>
      lengths.map(async (length) => {
        const message = pattern(length, length + 1);
        const answer = await region.control(message, { bulk });
        assertEquals(new Uint8Array(answer), message.toReversed());
      })
    ));
  }));

for (const bytes of [0, 999, 1000, 5000]) {
  const is = bytes < 1000 ? "elsewhere as it has" : "in the room as that has";
  Deno.test(`an answer of 1000 bytes comes ${is} room for ${bytes}`, () =>
    withControl(reverse, async (region) => {
      const room = new Uint8Array(6000).subarray(500, 500 + bytes);
      const message = pattern(1000, 4);
      const answer = await region.control(message, { room });
      assertEquals(new Uint8Array(answer), message.toReversed());
      assertEquals(answer.buffer === room.buffer, bytes >= 1000);
      const used = bytes < 1000 ? 0 : 1000;
      const around = [...new Uint8Array(room.buffer)].toSpliced(500, used);
      assertEquals(around, new Array(6000 - used).fill(0));
    }));
}

Deno.test("an answer is as long as a payload may be, and no longer", () =>
  withControl(
    ([more]) => Promise.resolve(pattern(LIMIT.PAYLOAD_MIN + more!, 3)),
    async (region) => {
      const longest = await region.control(new Uint8Array([0]));
      assertEquals(new Uint8Array(longest), pattern(LIMIT.PAYLOAD_MIN, 3));
      const error = await assertRejects(() => region.control(new Uint8Array([1])), RemoteError);
      assertEquals(error.code, "EMSGSIZE");
      await assertRejects(() => region.control(new Uint8Array(LIMIT.CONTROL + 1)), RangeError);
    },
    { payloadMax: LIMIT.PAYLOAD_MIN },
  ));

Deno.test("what the controller throws keeps its name and text", () => {
  const thrown: unknown[] = [
    new TelemapError("ESTALE", "That was another time"),
    new TelemapError("EBUSY", "Somebody else is here"),
    new RangeError("Too far"),
    new UnsupportedError("Not here"),
    "odd",
  ];
  const control: Controller = ([which]) => {
    if (which === 0) throw thrown[0];
    return Promise.reject(thrown[which!]);
  };
  return withControl(control, async (region) => {
    const ask = (which: number) => () => region.control(new Uint8Array([which]));
    const stale = await assertRejects(ask(0), RemoteError, "That was another time");
    assertEquals(stale.code, "ESTALE");
    assertEquals((await assertRejects(ask(1), RemoteError, "is here")).code, "EBUSY");
    assertEquals((await assertRejects(ask(2), RemoteError, "Too far")).code, "EINVAL");
    await assertRejects(ask(3), UnsupportedError, "Not here");
    assertEquals((await assertRejects(ask(4), RemoteError, "odd")).code, "EIO");
  });
});

Deno.test("an export without a controller takes no messages", async () => {
  await using backend = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend });
  await using region = await connectTelemap(server.url, QUIET);
  await assertRejects(() => region.control(new Uint8Array(1)), UnsupportedError, "no messages");
  await region.readAt(new Uint8Array(1), 0);
});

Deno.test("a client that does not know of messages is served as ever", () =>
  withPeer(reverse, async (peer) => {
    await peer.send({ type: TYPE.CONTROL, id: 1 }, pattern(100, 1));
    const refused = await peer.receive();
    assertEquals([refused?.frame.id, refused?.frame.code], [1, ERRNO.EOPNOTSUPP]);
    await peer.send({ type: TYPE.READ, id: 2, length: 10 });
    assertEquals((await peer.receive())?.frame.id, 2);
  }, FEATURE.CRC32));

Deno.test("a message that nobody agreed on is refused, and the stream stays in step", () =>
  withPeer(undefined, async (peer) => {
    await peer.send({ type: TYPE.CONTROL, id: 1 }, pattern(LIMIT.CONTROL, 1));
    const refused = await peer.receive();
    assertEquals([refused?.frame.id, refused?.frame.code], [1, ERRNO.EOPNOTSUPP]);
    await peer.send({ type: TYPE.PING, id: 2 });
    assertEquals((await peer.receive())?.frame.id, 2);
  }));

Deno.test("a message over the limit ends the connection with a reason", () =>
  withPeer(reverse, async (peer) => {
    await peer.write(frameBytes({ type: TYPE.CONTROL, payloadLength: LIMIT.CONTROL + 1 }));
    const bye = await peer.receive();
    assertEquals([bye?.frame.type, bye?.frame.code], [TYPE.BYE | REPLY, ERRNO.EPROTO]);
    assert(decodeMessage(bye!.payload).includes("type 9 with 65537 bytes"));
    assertEquals(await peer.receive(), undefined);
  }));

Deno.test("an answer that takes long holds nothing up, and answers come in any order", async () => {
  const controller = new HeldController();
  await withControl(controller.control, async (region) => {
    const first = region.control(new Uint8Array([1]));
    const second = region.control(new Uint8Array([2]));
    await controller.came(2);
    await region.readAt(new Uint8Array(4096), 0);
    await region.flush();
    controller.held.reverse();
    controller.echo();
    assertEquals(await second, new Uint8Array([2]));
    controller.echo();
    assertEquals(await first, new Uint8Array([1]));
  });
});

Deno.test("the controller may keep the message, whatever comes after it", async () => {
  const controller = new HeldController();
  await withControl(controller.control, async (region) => {
    const messages = [1, 2, 3].map((seed) => pattern(30_000, seed));
    const answers = messages.map((message) => region.control(message));
    // The caller's array is its own again at once.
    messages[0]!.fill(0);
    await controller.came(3);
    for (const seed of [1, 2, 3]) {
      assertEquals(new Uint8Array(controller.held[0]!.message), pattern(30_000, seed));
      controller.echo();
    }
    await Promise.all(answers);
  });
});

Deno.test("an answer may take longer than a server may be silent, where it is told so", async () => {
  const controller = new HeldController();
  await withControl(controller.control, async (region, server) => {
    const asked = region.control(new Uint8Array([1]), { timeout: 60_000 });
    await controller.came(1);
    // A read that hangs as long as that would be asked again on another connection.
    const end = performance.now() + 600;
    while (performance.now() < end) await region.roundTrip();
    assertEquals(server.accepted, 2);
    controller.echo();
    assertEquals(await asked, new Uint8Array([1]));
    assertEquals(controller.count, 1);
  }, { requestTimeout: 100 });
});

Deno.test("a message that is passed over is sent again on another connection", async () => {
  const controller = new HeldController();
  await withControl(controller.control, async (region) => {
    const asked = region.control(new Uint8Array([1]), { timeout: 200 });
    await controller.came(2);
    controller.held[1]!.answer.resolve(new Uint8Array([2]));
    assertEquals(await asked, new Uint8Array([2]));
    controller.held[0]!.answer.resolve(new Uint8Array([3]));
  }, { requestTimeout: 100 });
});

Deno.test("with onLoss error, a message fails when its own time is over", async () => {
  const controller = new HeldController();
  await withControl(controller.control, async (region) => {
    const long = region.control(new Uint8Array([1]), { bulk: true, timeout: 60_000 });
    await controller.came(1);
    const start = performance.now();
    const late = () => region.control(new Uint8Array([2]), { timeout: 400 });
    await assertRejects(late, DeadlineError);
    assert(performance.now() - start >= 400);
    controller.echo();
    assertEquals(await long, new Uint8Array([1]));
  }, { onLoss: "error", requestTimeout: 100 });
});

Deno.test("messages without an answer are sent again when the connection was lost", async () => {
  const controller = new HeldController();
  await withControl(controller.control, async (region, server) => {
    const asked = [
      region.control(new Uint8Array([1])),
      region.control(new Uint8Array([2]), { bulk: true }),
    ];
    await controller.came(2);
    server.drop();
    await controller.came(4);
    // What the first connection brought is answered to nobody.
    for (const { answer } of controller.held.splice(0, 2)) answer.resolve(new Uint8Array([9]));
    controller.echo();
    controller.echo();
    assertEquals(await Promise.all(asked), [new Uint8Array([1]), new Uint8Array([2])]);
  });
});

Deno.test("connections that are cut anywhere change no answer", async () => {
  const cuts = fc.array(fc.integer({ min: 1, max: 60_000 }), { minLength: 1, maxLength: 5 });
  const property = fc.asyncProperty(cuts, async (positions) => {
    const harm: Harm = ({ bytes, position, connection }) => {
      const left = (positions[connection] ?? Infinity) - position;
      return left <= bytes.length ? Math.max(left, 0) : undefined;
    };
    await using backend = openMemory({ size: SIZE });
    await using server = TestWireServer.start({ backend, control: reverse });
    await using proxy = HarmfulProxy.start(server.url, harm);
    const connect = () => connectTelemap(proxy.url, QUIET).catch(() => undefined);
    let connected = await connect();
    while (connected === undefined) connected = await connect();
    await using region = connected;
    await Promise.all(Array.from({ length: 40 }, async (_, index) => {
      const message = pattern(1 + index * 100, index);
      const answer = await region.control(message, { bulk: index % 2 === 1 });
      assertEquals(new Uint8Array(answer), message.toReversed());
    }));
  });
  await fc.assert(property, { numRuns: 12 });
});

Deno.test("a message or an answer that arrives damaged is sent once more", async () => {
  const hellos = { up: CLIENT_HELLO, down: SERVER_HELLO };
  for (const damaged of ["up", "down"] as const) {
    const at = hellos[damaged] + HEADER_BYTES + 50;
    const harm: Harm = ({ bytes, position, direction }) => {
      const index = at - position;
      const here = direction === damaged && index >= 0 && index < bytes.length;
      if (here) bytes[index]! ^= 4;
      return undefined;
    };
    let came = 0;
    const control: Controller = (message, gone) => {
      came++;
      return reverse(message, gone);
    };
    await withHarm(harm, control, async (region) => {
      const message = pattern(100, 7);
      assertEquals(new Uint8Array(await region.control(message)), message.toReversed());
      assertEquals(came, damaged === "up" ? 1 : 2);
    });
  }
});

Deno.test("an answer that always arrives damaged is an error, never shown", async () => {
  const harm: Harm = ({ bytes, position, direction }) => {
    for (let index = 0; index < bytes.length && direction === "down"; index++) {
      const at = position + index - SERVER_HELLO;
      if (at >= 0 && at % (100 + HEADER_BYTES) === HEADER_BYTES + 9) bytes[index]! ^= 1;
    }
    return undefined;
  };
  await withHarm(harm, reverse, async (region) => {
    await assertRejects(() => region.control(pattern(100, 1)), IntegrityError, "A message");
  });
});

Deno.test("what was given up is not sent any more, and its answer is nobody's", async () => {
  const controller = new HeldController();
  await using backend = openMemory({ size: SIZE });
  const directory = await Deno.makeTempDir();
  const socket = `${directory}/socket`;
  const start = () => TestWireServer.start({ backend, socket, control: controller.control });
  const first = start();
  await using region = await connectTelemap(first.url, QUIET);
  const giveUp = new AbortController();
  const gone = assertRejects(
    () => region.control(new Uint8Array([1]), { signal: giveUp.signal }),
    Error,
    "no more",
  );
  await controller.came(1);
  const goesOn = region.control(new Uint8Array([2]));
  await controller.came(2);
  giveUp.abort(new Error("no more"));
  await gone;
  controller.echo();
  controller.echo();
  assertEquals(await goesOn, new Uint8Array([2]));
  // The same with a message that waits for a server.
  await first[Symbol.asyncDispose]();
  const never = new AbortController();
  const waiting = assertRejects(
    () => region.control(new Uint8Array([3]), { signal: never.signal }),
    Error,
    "never",
  );
  const behind = region.control(new Uint8Array([4]));
  never.abort(new Error("never"));
  await waiting;
  await using _second = start();
  await controller.came(3);
  controller.echo();
  assertEquals(await behind, new Uint8Array([4]));
  assertEquals(controller.count, 3);
  const late = () => region.control(new Uint8Array([5]), { signal: never.signal });
  await assertRejects(late, Error, "never");
  await Deno.remove(directory, { recursive: true });
});

Deno.test("many messages wait in line, and reads do not wait for them", async () => {
  const controller = new HeldController();
  await withControl(controller.control, async (region) => {
    const asked = Array.from({ length: 200 }, (_, at) => region.control(new Uint8Array([at])));
    await controller.came(32);
    await region.readAt(new Uint8Array(4096), 0);
    assertEquals(controller.count, 32);
    for (let count = 1; count <= 200; count++) {
      controller.echo();
      await controller.came(Math.min(count + 32, 200));
    }
    const answers = await Promise.all(asked);
    assertEquals(answers.map(([at]) => at), asked.map((_, at) => at));
  });
});

Deno.test("a client that sends messages on and on gets no more than so many in hand", async () => {
  const controller = new HeldController();
  await withPeer(controller.control, async (peer) => {
    const frames = Array.from(
      { length: 64 },
      (_, id) => frameBytes({ type: TYPE.CONTROL, id: id + 1 }, pattern(LIMIT.CONTROL, id)),
    );
    const sending = (async () => {
      for (const bytes of frames) await peer.write(bytes);
    })();
    // 64 MiB in all, of which an answer counts for 1 MiB, and its message for 64 KiB.
    const most = Math.ceil(64 / (1 + 1 / 16));
    await controller.came(most);
    for (let count = most; count < 64; count++) {
      assertEquals(controller.count, count);
      controller.echo();
      assertEquals((await peer.receive())!.payload.length, LIMIT.CONTROL);
      await controller.came(count + 1);
    }
    await sending;
    for (const { answer } of controller.held) answer.resolve(new Uint8Array(0));
  });
});

Deno.test("close() fails messages that have no answer, sent or not", async () => {
  const controller = new HeldController();
  await withControl(controller.control, async (region) => {
    const asked = Array.from(
      { length: 50 },
      () => assertRejects(() => region.control(new Uint8Array(1)), ClosedError),
    );
    await controller.came(32);
    await region.close();
    await Promise.all(asked);
    await assertRejects(() => region.control(new Uint8Array(1)), ClosedError);
    for (const { answer } of controller.held) answer.resolve(new Uint8Array(0));
  });
});

/** Answers of hostile servers to a message, and whether the request itself fails. */
const WRONG: Record<string, (request: Frame) => Uint8Array> = {
  "about a place": ({ id }) => frameBytes({ type: TYPE.CONTROL | REPLY, id, offset: 1 }),
  "about a length": ({ id }) => frameBytes({ type: TYPE.CONTROL | REPLY, id, length: 1 }),
  "of another type": ({ id }) => frameBytes({ type: TYPE.READ | REPLY, id }, pattern(10, 1)),
  "to another message": ({ id }) => frameBytes({ type: TYPE.CONTROL | REPLY, id: id + 1 }),
  "with a payload over the limit": ({ id }) =>
    frameBytes({ type: TYPE.CONTROL | REPLY, id, payloadLength: (1 << 20) + 1 }),
  "with an endless error text": ({ id }) =>
    frameBytes({ type: TYPE.CONTROL | REPLY, id, code: 5 }, pattern(LIMIT.MESSAGE + 1, 1)),
};

/** Runs a test with a client of a server that answers messages so. */
async function withAnswers(
  answer: (request: Frame, asked: number) => Uint8Array,
  run: (region: RemoteBackend) => Promise<void>,
): Promise<void> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const peers: Promise<void>[] = [];
  let count = 0;
  const serve = async (conn: Deno.Conn) => {
    using peer = new WirePeer(conn);
    await peer.welcome({ features: FEATURE.CRC32 | FEATURE.CONTROL });
    for (let asked = await peer.receive(); asked !== undefined; asked = await peer.receive()) {
      await peer.write(answer(asked.frame, count++));
    }
  };
  const accepting = (async () => {
    // The client may be gone before it heard everything.
    for await (const conn of listener) peers.push(serve(conn).catch(() => {}));
  })();
  try {
    const url = `telemap://127.0.0.1:${listener.addr.port}`;
    await using region = await connectTelemap(url, QUIET);
    await run(region);
  } finally {
    listener.close();
    await accepting;
    await Promise.all(peers);
  }
}

for (const [what, answer] of Object.entries(WRONG)) {
  Deno.test(`an answer ${what} ends the connection, and in the end fails the message`, () =>
    withAnswers(answer, async (region) => {
      await assertRejects(() => region.control(new Uint8Array(1)), ProtocolError);
    }));
}

Deno.test("arbitrary bytes in place of an answer cost a connection, and no more", async () => {
  const tails = fc.uint8Array({ minLength: 1, maxLength: 200 });
  await fc.assert(
    fc.asyncProperty(tails, fc.nat(40), (tail, kept) => {
      const right = ({ id }: Frame) =>
        frameBytes({ type: TYPE.CONTROL | REPLY, id }, pattern(9, 1));
      const answer = (request: Frame, asked: number) =>
        asked > 0 ? right(request) : new Uint8Array([
          ...frameBytes({ type: TYPE.CONTROL | REPLY, id: request.id, payloadLength: 9 })
            .subarray(0, kept),
          // Whatever the client takes it for, the end is reached and is wrong.
          ...tail,
          ...new Uint8Array(80).fill(0xff),
        ]);
      return withAnswers(answer, async (region) => {
        assertEquals(new Uint8Array(await region.control(new Uint8Array(1))), pattern(9, 1));
      });
    }),
    { numRuns: 30 },
  );
});

Deno.test("arbitrary bytes around messages leave the server well", async () => {
  await using backend = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend, control: reverse });
  const message = frameBytes({ type: TYPE.CONTROL, id: 1 }, pattern(60, 1));
  const bits = fc.array(fc.nat(message.length * 8 - 1), { maxLength: 3 });
  const property = fc.asyncProperty(
    bits,
    fc.nat(message.length),
    fc.uint8Array({ maxLength: 100 }),
    async (flips, kept, tail) => {
      using peer = await WirePeer.dial(server.url);
      await peer.hello({ features: ALL });
      const bytes = message.slice();
      for (const bit of flips) bytes[bit >> 3]! ^= 1 << bit % 8;
      await peer.write(new Uint8Array([...bytes.subarray(0, kept), ...tail]));
      await peer.conn.closeWrite();
      for (let reply = await peer.read(1); reply !== undefined; reply = await peer.read(1));
    },
  );
  await fc.assert(property, { numRuns: 200 });
  await using region = await connectTelemap(server.url, QUIET);
  assertEquals(await region.control(new Uint8Array([1, 2])), new Uint8Array([2, 1]));
});
