/** The server of the native wire against clients that are right, wrong and hostile. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { ERRNO } from "../../ffi/errno.ts";
import { openLibc } from "../../ffi/libc.ts";
import type { Backend } from "../../lib/backend/backend.ts";
import { RemoteError } from "../../lib/backend/errors.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { contentChecksum } from "../../lib/rpc/checksum.ts";
import { compress, decompress } from "../../lib/rpc/compression.ts";
import { encodeClientHello } from "../../lib/rpc/hello.ts";
import {
  decodeExtents,
  decodeMessage,
  FLAG,
  LANE,
  LIMIT,
  REPLY,
  TYPE,
} from "../../lib/rpc/wire.ts";
import { pattern } from "../backend_model.ts";
import { DelayedBackend } from "./delayed_backend.ts";
import { clientHello, frameBytes, WirePeer } from "./wire_peer.ts";
import { TestWireServer, type TestWireServerOptions } from "./wire_server.ts";

openLibc();

const SIZE = 8 << 20;

/** Runs a test with a client that said hello to a server of a memory region. */
async function withPeer(
  run: (peer: WirePeer, backend: Backend, server: TestWireServer) => Promise<void>,
  options: Partial<TestWireServerOptions> = {},
): Promise<void> {
  await using backend = options.backend ?? openMemory({ size: SIZE });
  await using server = TestWireServer.start({ ...options, backend });
  using peer = await WirePeer.dial(server.url);
  await peer.hello();
  await run(peer, backend, server);
}

/** Asks, and answers the reply, whose id must be that of the request. */
async function ask(
  peer: WirePeer,
  fields: Parameters<WirePeer["send"]>[0],
  payload?: Uint8Array<ArrayBuffer>,
) {
  await peer.send({ id: 77, ...fields }, payload);
  const reply = await peer.receive();
  assert(reply !== undefined, "the server closed the connection");
  assertEquals([reply.frame.type, reply.frame.id], [fields.type! | REPLY, 77]);
  return reply;
}

async function assertRefused(
  peer: WirePeer,
  fields: Parameters<WirePeer["send"]>[0],
  code: number,
  payload?: Uint8Array<ArrayBuffer>,
): Promise<void> {
  const reply = await ask(peer, fields, payload);
  assertEquals(reply.frame.code, code, decodeMessage(reply.payload));
  assert(reply.payload.length > 0);
}

/** The peer is told why, and the connection ends. */
async function assertGoodbye(peer: WirePeer, why: string): Promise<void> {
  const reply = await peer.receive();
  assertEquals([reply?.frame.type, reply?.frame.code], [TYPE.BYE | REPLY, ERRNO.EPROTO]);
  assertStringIncludes(decodeMessage(reply!.payload), why);
  assertEquals(await peer.receive(), undefined);
}

/** Asserts that a promise has not settled after what another connection asked for was answered. */
async function assertPending(promise: Promise<unknown>, other: WirePeer): Promise<void> {
  let settled = false;
  promise.then(() => settled = true);
  for (const id of [5, 6]) {
    await other.send({ type: TYPE.PING, id });
    assertEquals((await other.receive())!.frame.id, id);
  }
  assertEquals(settled, false);
}

Deno.test("the server's hello tells of the region and takes the lower limits", async () => {
  const region = pattern(16, 1), instance = pattern(16, 2);
  await using backend = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend, region, instance, inFlightMax: 9 });
  using peer = await WirePeer.dial(server.url);
  const hello = await peer.hello({ payloadMax: 1 << 20, inFlightMax: 64 });
  assertEquals(hello, {
    ...{ version: 1, features: 3, payloadMax: 1 << 20, inFlightMax: 9, blockSize: 1, size: SIZE },
    ...{ region, instance, readOnly: false, durable: false },
  });
});

Deno.test("READ, WRITE and every other request is answered", () =>
  withPeer(async (peer) => {
    const content = pattern(100_000, 3), where = { offset: 12345, length: content.length };
    assertEquals((await ask(peer, { type: TYPE.WRITE, ...where }, content)).frame.code, 0);
    const read = await ask(peer, { type: TYPE.READ, ...where });
    assertEquals(new Uint8Array(read.payload), content);
    const copy = await ask(peer, { type: TYPE.READ, ...where, flags: FLAG.COPY });
    assertEquals(new Uint8Array(copy.payload), content);
    for (const type of [TYPE.FLUSH, TYPE.PING]) {
      assertEquals((await ask(peer, { type })).frame.code, 0);
    }
    assertEquals((await ask(peer, { type: TYPE.ZERO, offset: 20_000, length: 10 })).frame.code, 0);
    assertEquals((await ask(peer, { type: TYPE.DISCARD, offset: 0, length: SIZE })).frame.code, 0);
    const extents = await ask(peer, { type: TYPE.EXTENTS, offset: 0, length: SIZE });
    const run = { offset: 0, length: SIZE, hole: true, zero: true };
    assertEquals(decodeExtents(extents.payload, 0, SIZE), [run]);
  }));

Deno.test("zeroes travel as a flag both ways", () =>
  withPeer(async (peer, backend) => {
    await backend.writeAt(new Uint8Array(65536).fill(1), 0);
    const write = { type: TYPE.WRITE, offset: 100, length: 1000, flags: FLAG.ZERO };
    assertEquals((await ask(peer, write)).frame.code, 0);
    const read = await ask(peer, { type: TYPE.READ, offset: 100, length: 1000 });
    assertEquals([read.frame.flags, read.frame.length, read.payload.length], [FLAG.ZERO, 1000, 0]);
    const beside = await ask(peer, { type: TYPE.READ, offset: 99, length: 1002 });
    assertEquals([beside.payload[0], beside.payload[1], beside.payload[1001]], [1, 0, 1]);
  }));

Deno.test("contents are compressed where the client wishes it and they shrink", () =>
  withPeer(async (peer) => {
    const content = new Uint8Array(65536).map((_, index) => index % 100);
    const packed = new Uint8Array(compress(content)!);
    const checksum = contentChecksum(content);
    const write = { type: TYPE.WRITE, offset: 0, length: 65536, flags: FLAG.ZSTD, checksum };
    assertEquals((await ask(peer, write, packed)).frame.code, 0);
    const plain = await ask(peer, { type: TYPE.READ, offset: 0, length: 65536 });
    assertEquals([plain.frame.flags, plain.payload.length], [0, 65536]);
    const wish = { type: TYPE.READ, offset: 0, length: 65536, flags: FLAG.COMPRESS };
    const short = await ask(peer, wish);
    assert(short.frame.flags === FLAG.ZSTD && short.payload.length < 8192);
    assertEquals(new Uint8Array(decompress(short.payload, 65536)!), content);
  }));

Deno.test("what the backend refuses is an error reply, and the stream stays in step", () =>
  withPeer(async (peer) => {
    const some = pattern(10, 1);
    for (const [offset, length] of [[SIZE - 9, 10], [SIZE + 1, 0], [2 ** 53 - 1, 10]] as const) {
      await assertRefused(peer, { type: TYPE.READ, offset, length }, ERRNO.EINVAL);
      await assertRefused(peer, { type: TYPE.ZERO, offset, length }, ERRNO.EINVAL);
      await assertRefused(peer, { type: TYPE.EXTENTS, offset, length }, ERRNO.EINVAL);
    }
    await assertRefused(
      peer,
      { type: TYPE.WRITE, offset: SIZE - 9, length: 10 },
      ERRNO.EINVAL,
      some,
    );
    const large = { type: TYPE.READ, offset: 0, length: LIMIT.PAYLOAD_MAX + 1 };
    await assertRefused(peer, large, ERRNO.EINVAL);
    await assertRefused(peer, { type: 99 }, ERRNO.EOPNOTSUPP, some);
    assertEquals((await ask(peer, { type: TYPE.PING })).frame.code, 0);
  }));

Deno.test("a read-only export refuses every change", () =>
  withPeer(async (peer, backend) => {
    const where = { offset: 0, length: 10 };
    await assertRefused(peer, { type: TYPE.WRITE, ...where }, ERRNO.EPERM, pattern(10, 1));
    await assertRefused(peer, { type: TYPE.WRITE, ...where, flags: FLAG.ZERO }, ERRNO.EPERM);
    await assertRefused(peer, { type: TYPE.ZERO, ...where }, ERRNO.EPERM);
    await assertRefused(peer, { type: TYPE.DISCARD, ...where }, ERRNO.EPERM);
    const bytes = new Uint8Array(10);
    await backend.readAt(bytes, 0);
    assertEquals(bytes, new Uint8Array(10));
  }, { readOnly: true }));

Deno.test("a damaged content is refused before it is written", () =>
  withPeer(async (peer, backend) => {
    const where = { type: TYPE.WRITE, offset: 0, length: 10 };
    await assertRefused(peer, { ...where, checksum: 1 }, ERRNO.EBADMSG, pattern(10, 1));
    const packed = { ...where, flags: FLAG.ZSTD, length: 1 << 20 };
    await assertRefused(peer, packed, ERRNO.EBADMSG, pattern(1000, 1));
    const bytes = new Uint8Array(10);
    await backend.readAt(bytes, 0);
    assertEquals(bytes, new Uint8Array(10));
  }));

Deno.test("a backend's own errors keep their names", () => {
  const backend = openMemory({ size: SIZE });
  const full = new RemoteError("ENOSPC", "The store is full");
  Object.assign(backend, { writeAt: () => Promise.reject(full), writesAtOnce: false });
  Object.assign(backend, {
    flush: () => {
      throw new Error("odd");
    },
  });
  return withPeer(async (peer) => {
    const where = { type: TYPE.WRITE, offset: 0, length: 10 };
    await assertRefused(peer, where, ERRNO.ENOSPC, pattern(10, 1));
    await assertRefused(peer, { type: TYPE.FLUSH }, ERRNO.EIO);
  }, { backend });
});

Deno.test("a backend that answers later is answered for in the order in which it does", async () => {
  const backend = new DelayedBackend(openMemory({ size: SIZE }));
  await withPeer(async (peer) => {
    for (const id of [1, 2, 3]) await peer.send({ type: TYPE.READ, id, offset: id, length: 1 });
    await peer.send({ type: TYPE.PING, id: 4 });
    assertEquals((await peer.receive())!.frame.id, 4);
    await backend.held(3);
    for (const index of [1, 1, 0]) {
      const { offset } = backend.release(index);
      assertEquals((await peer.receive())!.frame.id, offset);
    }
  }, { backend });
});

Deno.test("no more requests than agreed are in the backend's hands", async () => {
  const backend = new DelayedBackend(openMemory({ size: SIZE }));
  await withPeer(async (peer) => {
    for (let id = 1; id <= 10; id++) {
      await peer.send({ type: TYPE.READ, id, offset: id, length: 1 });
    }
    for (let id = 1; id <= 10; id++) {
      await backend.held(Math.min(4, 11 - id));
      assert(backend.count <= 4, `${backend.count} requests`);
      backend.release(0);
      assertEquals((await peer.receive())!.frame.id, id);
    }
  }, { backend, inFlightMax: 4 });
});

Deno.test("a later connection of a lane is answered when the older one's writes are over", async () => {
  const backend = new DelayedBackend(openMemory({ size: SIZE }));
  const session = pattern(16, 9);
  await using _ = backend;
  await using server = TestWireServer.start({ backend });
  using first = await WirePeer.dial(server.url);
  await first.hello({ session, attempt: 1 });
  await first.send({ type: TYPE.WRITE, id: 1, offset: 0, length: 1 }, new Uint8Array([1]));
  await backend.held(1);
  backend.release(0);
  assertEquals((await first.receive())!.frame.id, 1);
  await first.send({ type: TYPE.WRITE, offset: 0, length: 3 }, new Uint8Array([1, 1, 1]));
  await backend.held(1);
  using other = await WirePeer.dial(server.url);
  await other.hello({ session, attempt: 1, lane: LANE.BULK });
  using second = await WirePeer.dial(server.url);
  const welcomed = second.hello({ session, attempt: 2 });
  // The old connection is dropped at once, the new one waits for the write that is under way.
  assertEquals(await first.receive(), undefined);
  await assertPending(welcomed, other);
  assertEquals(backend.count, 1);
  backend.release(0);
  assert("size" in await welcomed);
  using late = await WirePeer.dial(server.url);
  const refusal = await late.hello({ session, attempt: 1 });
  assertEquals("code" in refusal && refusal.code, ERRNO.ESTALE);
  await second.send({ type: TYPE.PING, id: 7 });
  assertEquals((await second.receive())!.frame.id, 7);
});

Deno.test("a third connection waits for the first even when the second is gone", async () => {
  const backend = new DelayedBackend(openMemory({ size: SIZE }));
  const session = pattern(16, 9);
  await using _ = backend;
  await using server = TestWireServer.start({ backend });
  using first = await WirePeer.dial(server.url);
  await first.hello({ session, attempt: 1 });
  await first.send({ type: TYPE.WRITE, offset: 0, length: 1 }, new Uint8Array([1]));
  await backend.held(1);
  using second = await WirePeer.dial(server.url);
  await second.write(encodeClientHello(clientHello({ session, attempt: 2 })));
  assertEquals(await first.receive(), undefined);
  using third = await WirePeer.dial(server.url);
  const welcomed = third.hello({ session, attempt: 3 });
  assertEquals(await second.receive(), undefined);
  using other = await WirePeer.dial(server.url);
  await other.hello();
  await assertPending(welcomed, other);
  assertEquals(backend.count, 1);
  backend.release(0);
  assert("size" in await welcomed);
});

Deno.test("a shutdown answers what is in hand, takes nothing more, and closes", async () => {
  const backend = new DelayedBackend(openMemory({ size: SIZE }));
  await withPeer(async (peer, _backend, server) => {
    await peer.send({ type: TYPE.WRITE, id: 1, offset: 0, length: 1 }, new Uint8Array([1]));
    await backend.held(1);
    server.shutdown();
    await peer.send({ type: TYPE.PING, id: 2 });
    backend.release(0);
    assertEquals((await peer.receive())!.frame.id, 1);
    assertEquals(await peer.receive(), undefined);
  }, { backend });
});

Deno.test("a token is asked for, and a wrong one is refused after a while", async () => {
  await using backend = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend, token: "sesame", wrongTokenMs: 100 });
  for (const [token, why] of [["", "needed"], ["sesam", "wrong"], ["sesame!", "wrong"]] as const) {
    using peer = await WirePeer.dial(server.url);
    const start = performance.now();
    const answer = await peer.hello({ token });
    assert("code" in answer && answer.code === ERRNO.EACCES);
    assertStringIncludes(answer.message, why);
    assert(performance.now() - start > 90);
    assertEquals(await peer.receive(), undefined);
  }
  using peer = await WirePeer.dial(server.url);
  assert("size" in await peer.hello({ token: "sesame" }));
});

Deno.test("a wrong token gets no request performed, even when it does not wait", async () => {
  await using backend = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend, token: "sesame", wrongTokenMs: 50 });
  using peer = await WirePeer.dial(server.url);
  const write = frameBytes({ type: TYPE.WRITE, offset: 0, length: 1 }, new Uint8Array([1]));
  await peer.write(new Uint8Array([...encodeClientHello(clientHello({ token: "x" })), ...write]));
  assert("code" in await peer.readServerHello());
  assertEquals(await peer.receive(), undefined);
  const byte = new Uint8Array(1);
  await backend.readAt(byte, 0);
  assertEquals(byte[0], 0);
});

Deno.test("whoever shows a wrong token gets nothing read meanwhile", async () => {
  await using backend = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend, token: "sesame" });
  using peer = await WirePeer.dial(server.url);
  await peer.write(encodeClientHello(clientHello({ token: "x" })));
  // More than the kernel keeps: it cannot all be sent before the connection is closed.
  await assertRejects(() => peer.write(new Uint8Array(24 << 20)));
});

Deno.test("an export that is not there, and a version that is not spoken, are refused", async () => {
  await using backend = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend });
  using peer = await WirePeer.dial(server.url);
  const answer = await peer.hello({ name: "none" });
  assertEquals(answer, { code: ERRNO.ENOENT, message: 'There is no export named "none"' });
  using newer = await WirePeer.dial(server.url);
  const hello = encodeClientHello(clientHello());
  new DataView(hello.buffer).setUint16(12, 2, true);
  await newer.write(hello);
  const refusal = await newer.readServerHello();
  assert("code" in refusal && refusal.code === ERRNO.EPROTO);
  assertStringIncludes(refusal.message, "versions 1 to 1");
});

Deno.test("a hello that does not come in time is not waited for", async () => {
  await using backend = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend, helloMs: 40 });
  const hello = encodeClientHello(clientHello());
  for (const length of [0, 1, 11, 16, hello.length - 1]) {
    using peer = await WirePeer.dial(server.url);
    await peer.write(hello.subarray(0, length));
    const answer = await peer.readServerHello();
    assert("code" in answer && answer.code === ERRNO.ETIMEDOUT);
    assertEquals(await peer.receive(), undefined);
  }
});

Deno.test("headers that break the protocol end the connection with a reason", async () => {
  const cases: [Parameters<typeof frameBytes>[0], string][] = [
    [{ type: TYPE.READ, payloadLength: LIMIT.PAYLOAD_MAX + 1 }, "limit"],
    [{ type: TYPE.WRITE, length: 0xffff_ffff, payloadLength: 0xffff_ffff }, "limit"],
    [{ type: TYPE.READ, payloadLength: 1 }, "type 1 with 1 bytes"],
    [{ type: TYPE.WRITE, length: 2, payloadLength: 1 }, "type 2 with 1 bytes"],
    [{ type: TYPE.WRITE, length: 1, payloadLength: 2, flags: FLAG.ZSTD }, "type 2 with 2 bytes"],
    [{ type: TYPE.WRITE, length: 1, payloadLength: 1, flags: FLAG.ZERO }, "type 2 with 1 bytes"],
    [{ type: TYPE.READ | REPLY }, "reply from a client"],
  ];
  for (const [fields, why] of cases) {
    await withPeer(async (peer) => {
      await peer.write(frameBytes(fields));
      await assertGoodbye(peer, why);
    });
  }
  await withPeer(async (peer) => {
    const bytes = frameBytes({ type: TYPE.PING });
    bytes[9]! ^= 1;
    await peer.write(bytes);
    await assertGoodbye(peer, "checksum");
  });
});

Deno.test("BYE ends the connection", () =>
  withPeer(async (peer) => {
    await peer.send({ type: TYPE.BYE });
    assertEquals(await peer.receive(), undefined);
  }));

Deno.test("arbitrary bytes after and instead of a hello leave the server well", async () => {
  await using backend = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend });
  const start = frameBytes({ type: TYPE.PING });
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 200 });
  const property = fc.asyncProperty(
    bytes,
    fc.boolean(),
    fc.nat(40),
    async (tail, greeted, kept) => {
      using peer = await WirePeer.dial(server.url);
      if (greeted) await peer.hello();
      await peer.write(new Uint8Array([...start.subarray(0, kept), ...tail]));
      await peer.conn.closeWrite();
      for (let reply = await peer.read(1); reply !== undefined; reply = await peer.read(1));
    },
  );
  await fc.assert(property, { numRuns: 200 });
  using peer = await WirePeer.dial(server.url);
  assert("size" in await peer.hello());
});
