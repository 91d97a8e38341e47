import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Peer, type Received, ScriptedNbdServer } from "../../tests/scripted_nbd_server.ts";
import { type Backend, writeZeroes } from "../backend/backend.ts";
import {
  ClosedError,
  ConnectionError,
  DeadlineError,
  IntegrityError,
  ProtocolError,
  ReadOnlyError,
  RemoteError,
  UnsupportedError,
  UsageError,
} from "../backend/errors.ts";
import { connectNbd, type NbdBackend, type NbdClientOptions } from "./client.ts";
import { CHUNK, COMMAND, COMMAND_FLAG, FLAG, NBD_ERROR } from "./constants.ts";

const SIZE = 1 << 20;
const FLAGS = FLAG.HAS_FLAGS | FLAG.SEND_FLUSH | FLAG.SEND_TRIM | FLAG.SEND_WRITE_ZEROES;
const OFFER = { size: SIZE, flags: FLAGS };

const NO_REQUEST = { command: 0, flags: 0, offset: 0, length: 0, payload: new Uint8Array(0) };

/** Answers one request out of memory; false for the one that ends the connection. */
async function answer(peer: Peer, request: Received, memory: Uint8Array): Promise<boolean> {
  const { command, offset, length, payload } = request;
  switch (command) {
    case COMMAND.DISC:
      return false;
    case COMMAND.READ: {
      const body = new Uint8Array(8 + length);
      new DataView(body.buffer).setUint32(4, offset);
      body.set(memory.subarray(offset, offset + length), 8);
      await peer.chunk(request, CHUNK.OFFSET_DATA, true, body);
      return true;
    }
    case COMMAND.WRITE:
      memory.set(payload, offset);
      break;
    case COMMAND.WRITE_ZEROES:
    case COMMAND.TRIM:
      memory.fill(0, offset, offset + length);
      break;
  }
  await peer.chunk(request, CHUNK.NONE, true);
  return true;
}

/** A whole connection of a good server. */
async function behave(peer: Peer, memory = new Uint8Array(SIZE)): Promise<void> {
  await peer.handshake(OFFER);
  while (await answer(peer, await peer.request(), memory));
}

function connect(server: ScriptedNbdServer, options: NbdClientOptions = {}): Promise<NbdBackend> {
  return connectNbd(server.url, { log: () => {}, ...options });
}

function filled(length: number, value: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(length).fill(value);
}

Deno.test("requests go out side by side, and a long one in parts the server takes", async () => {
  const memory = new Uint8Array(SIZE);
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.handshake({
      ...OFFER,
      infos: [{ kind: "block size", minimum: 512, preferred: 4096, maximum: 10_000 }],
    });
    const parts = [];
    for (let count = 0; count < 3; count++) parts.push(await peer.request());
    assertEquals(parts.map(({ offset, length }) => [offset, length]), [
      [512, 9728],
      [512 + 9728, 9728],
      [512 + 19456, 1024],
    ]);
    for (const request of parts.reverse()) await answer(peer, request, memory);
    while (await answer(peer, await peer.request(), memory));
  });
  await using backend = await connect(server);
  assertEquals(backend.blockSize, 512);
  await backend.writeAt(filled(20_480, 7), 512);
  assertEquals(memory.indexOf(7), 512);
  assertEquals(memory.lastIndexOf(7), 512 + 20_479);
  assertThrows(() => backend.readAt(new Uint8Array(512), 100), RangeError, "multiples of 512");
  assertThrows(() => backend.readAt(new Uint8Array(100), 512), RangeError, "multiples of 512");
  assertThrows(() => backend.readAt(new Uint8Array(512), SIZE), RangeError);
});

Deno.test("a payload larger than what is gathered arrives whole, also of shared memory", async () => {
  const memory = new Uint8Array(SIZE);
  await using server = new ScriptedNbdServer((peer) => behave(peer, memory));
  await using backend = await connect(server);
  const data = crypto.getRandomValues(new Uint8Array(60_000));
  const shared = new Uint8Array(new SharedArrayBuffer(SIZE - 1000));
  for (let at = 0; at < shared.length; at += 60_000) {
    shared.set(data.subarray(0, shared.length - at), at);
  }
  await Promise.all([backend.writeAt(shared, 1000), backend.writeAt(data.subarray(0, 900), 0)]);
  assertEquals(memory.subarray(1000), new Uint8Array(shared));
  const back = new Uint8Array(new SharedArrayBuffer(shared.length));
  await backend.readAt(back, 1000);
  assertEquals(new Uint8Array(back), new Uint8Array(shared));
});

Deno.test("what the server has no flag for is not offered", async () => {
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.handshake({ size: SIZE, flags: FLAG.HAS_FLAGS, structured: false });
    const request = await peer.request();
    assertEquals(request.command, COMMAND.READ);
    await peer.simple(request, 0, filled(request.length, 3));
    assertEquals((await peer.request()).command, COMMAND.DISC);
  });
  await using backend: Backend = await connect(server);
  assertEquals(backend.durable, false);
  assertEquals([backend.zero, backend.discard, backend.extents], [undefined, undefined, undefined]);
  await backend.flush();
  const buffer = new Uint8Array(10);
  await backend.readAt(buffer, 0);
  assertEquals(buffer, filled(10, 3));
});

Deno.test("a read-only export refuses changes before they are sent", async () => {
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.handshake({ size: SIZE, flags: FLAGS | FLAG.READ_ONLY });
    assertEquals((await peer.request()).command, COMMAND.DISC);
  });
  await using backend = await connect(server);
  assertThrows(() => backend.writeAt(new Uint8Array(1), 0), ReadOnlyError);
  assertThrows(() => backend.zero!(0, 1), ReadOnlyError);
  assertThrows(() => backend.discard!(0, 1), ReadOnlyError);
});

Deno.test("zero() asks to keep what it zeroes allocated, and may be refused", async () => {
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.handshake(OFFER);
    const first = await peer.request();
    assertEquals([first.command, first.flags], [COMMAND.WRITE_ZEROES, COMMAND_FLAG.NO_HOLE]);
    await peer.chunk(first, CHUNK.NONE, true);
    const second = await peer.request();
    assertEquals([second.command, second.flags], [COMMAND.WRITE_ZEROES, 0]);
    const error = new Uint8Array([0, 0, 0, NBD_ERROR.ENOTSUP, 0, 0]);
    await peer.chunk(second, CHUNK.ERROR, true, error);
    await peer.gone();
  });
  await using backend = await connect(server);
  await backend.zero!(0, 4096, { allocate: true });
  await assertRejects(async () => await backend.zero!(0, 4096), UnsupportedError);
});

Deno.test("extents() asks on until the range is covered, and merges", async () => {
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.handshake(OFFER);
    for (const [length, state] of [[100, 3], [50, 3], [5000, 0]]) {
      const body = new Uint8Array(12);
      const view = new DataView(body.buffer);
      view.setUint32(0, 5);
      view.setUint32(4, length!);
      view.setUint32(8, state!);
      await peer.chunk(await peer.request(), CHUNK.BLOCK_STATUS, true, body);
    }
    await peer.gone();
  });
  await using backend = await connect(server);
  assertEquals(await backend.extents!(1000, 200), [
    { offset: 1000, length: 150, hole: true, zero: true },
    { offset: 1150, length: 50, hole: false, zero: false },
  ]);
});

Deno.test("an error of the server has its number's name and its message", async () => {
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.handshake(OFFER);
    const text = new TextEncoder().encode("quota");
    const body = new Uint8Array([0, 0, 0, NBD_ERROR.ENOSPC, 0, text.length, ...text]);
    await peer.chunk(await peer.request(), CHUNK.ERROR, true, body);
    const unknown = new Uint8Array([0, 0, 3, 231, 0, 0]);
    await peer.chunk(await peer.request(), CHUNK.ERROR, true, unknown);
    await peer.gone();
  });
  await using backend = await connect(server);
  const error = await assertRejects(() => backend.writeAt(new Uint8Array(3), 7), RemoteError);
  assertEquals(error.code, "ENOSPC");
  assertEquals(
    error.message,
    `${server.url} could not write 3 bytes at offset 7: ENOSPC (quota)`,
  );
  const other = await assertRejects(() => backend.readAt(new Uint8Array(3), 7), RemoteError);
  assertEquals(other.code, "EINVAL");
});

Deno.test("a broken reply fails what is in flight; the next call has a new connection", async () => {
  await using server = new ScriptedNbdServer(async (peer, index) => {
    if (index > 0) return await behave(peer, filled(SIZE, 9));
    await peer.handshake(OFFER);
    await peer.request();
    await peer.request();
    await peer.send(filled(100, 0x55));
    await peer.gone();
  });
  await using backend = await connect(server);
  const calls = [backend.readAt(new Uint8Array(10), 0), backend.writeAt(new Uint8Array(10), 0)];
  for (const result of await Promise.allSettled(calls)) {
    assert(result.status === "rejected" && result.reason instanceof ProtocolError, `${result}`);
  }
  const buffer = new Uint8Array(10);
  await backend.readAt(buffer, 0);
  assertEquals(buffer, filled(10, 9));
});

Deno.test("a reply to a request that was not sent yet breaks the protocol", async () => {
  await using server = new ScriptedNbdServer(async (peer, index) => {
    if (index > 0) return await behave(peer);
    await peer.handshake(OFFER);
    const head = await peer.receive(28);
    // The rest of that write fills the stream, so the one behind it, in the next slot, waits.
    const cookie = head.slice(8, 16);
    cookie[7]! -= 1;
    await peer.chunk({ ...NO_REQUEST, cookie }, CHUNK.NONE, true);
    await peer.gone();
  });
  await using backend = await connect(server);
  const calls = [backend.writeAt(new Uint8Array(SIZE), 0), backend.writeAt(new Uint8Array(9), 0)];
  for (const call of calls) {
    await assertRejects(() => call, ProtocolError, "which no request waits for");
  }
});

Deno.test("a reply that was due to an earlier request of the same slot breaks the protocol", async () => {
  await using server = new ScriptedNbdServer(async (peer, index) => {
    if (index > 0) return await behave(peer);
    await peer.handshake(OFFER);
    const first = await peer.request();
    await peer.chunk(first, CHUNK.NONE, true);
    const second = await peer.request();
    assertEquals(second.cookie.slice(4), first.cookie.slice(4));
    await peer.chunk(first, CHUNK.NONE, true);
    await peer.gone();
  });
  await using backend = await connect(server);
  await backend.flush();
  await assertRejects(() => backend.flush(), ProtocolError, "which no request waits for");
});

Deno.test("a write that is answered early has its buffer until it is sent", async () => {
  let received = 0;
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.handshake(OFFER);
    const head = await peer.receive(28);
    const error = new Uint8Array([0, 0, 0, NBD_ERROR.EPERM, 0, 0]);
    await peer.chunk({ ...NO_REQUEST, cookie: head.slice(8, 16) }, CHUNK.ERROR, true, error);
    for (; received < SIZE; received += 4096) await peer.receive(4096);
    await answer(peer, await peer.request(), new Uint8Array(SIZE));
    await peer.gone();
  });
  await using backend = await connect(server);
  await assertRejects(() => backend.writeAt(new Uint8Array(SIZE), 0), RemoteError, "EPERM");
  // What is not received yet is in the buffers of the system.
  assert(received >= SIZE / 4, `settled after ${received} bytes`);
  await backend.flush();
});

Deno.test("what had no answer when the connection broke is sent again", async () => {
  const memory = new Uint8Array(SIZE);
  const lines: string[] = [];
  await using server = new ScriptedNbdServer(async (peer, index) => {
    if (index === 2) return await behave(peer, memory);
    await peer.handshake(OFFER);
    for (let count = 0; count < 3; count++) {
      const request = await peer.request();
      if (count === index) await answer(peer, request, memory);
    }
  });
  await using backend = await connect(server, { log: (line) => lines.push(line) });
  const buffer = new Uint8Array(100);
  await Promise.all([
    backend.writeAt(filled(100, 1), 0),
    backend.writeAt(filled(100, 2), 100),
    backend.zero!(200, 100),
    backend.discard!(300, 100),
    backend.readAt(buffer, 400),
    ...Array.from({ length: 100 }, (_, index) => backend.writeAt(filled(10, 3), 1000 + 10 * index)),
  ]);
  assertEquals(server.connections, 3);
  assertEquals(memory.subarray(0, 200), new Uint8Array([...filled(100, 1), ...filled(100, 2)]));
  assertEquals(memory.subarray(1000, 2000), filled(1000, 3));
  assertEquals(lines.length, 4);
});

Deno.test("a read that broke off half-way starts over", async () => {
  await using server = new ScriptedNbdServer(async (peer, index) => {
    if (index > 0) return await behave(peer, filled(SIZE, 4));
    await peer.handshake(OFFER);
    const request = await peer.request();
    const body = new Uint8Array(8 + request.length / 2).fill(1, 8);
    await peer.chunk(request, CHUNK.OFFSET_DATA, false, body);
  });
  await using backend = await connect(server);
  const buffer = new Uint8Array(200_000);
  await backend.readAt(buffer, 0);
  assertEquals(buffer, filled(200_000, 4));
});

Deno.test("a server that shuts down is left, and its successor gets the request", async () => {
  const memory = new Uint8Array(SIZE);
  await using server = new ScriptedNbdServer(async (peer, index) => {
    if (index > 0) return await behave(peer, memory);
    await peer.handshake(OFFER);
    const error = new Uint8Array([0, 0, 0, NBD_ERROR.ESHUTDOWN, 0, 0]);
    await peer.chunk(await peer.request(), CHUNK.ERROR, true, error);
    await peer.gone();
  });
  await using backend = await connect(server);
  await backend.writeAt(filled(10, 1), 0);
  assertEquals(memory[0], 1);
});

Deno.test("a flush does not vouch for writes that a lost server may have forgotten", async () => {
  await using server = new ScriptedNbdServer(async (peer, index) => {
    if (index > 0) return await behave(peer);
    await peer.handshake(OFFER);
    await answer(peer, await peer.request(), new Uint8Array(SIZE));
  });
  await using backend = await connect(server);
  await backend.writeAt(filled(10, 1), 0);
  await backend.readAt(new Uint8Array(1), 0);
  await assertRejects(() => backend.flush(), IntegrityError, "may have lost writes");
  await backend.flush();
});

Deno.test("a flush under way when the server is lost does not vouch either", async () => {
  await using server = new ScriptedNbdServer(async (peer, index) => {
    if (index > 0) return await behave(peer);
    await peer.handshake(OFFER);
    await answer(peer, await peer.request(), new Uint8Array(SIZE));
    assertEquals((await peer.request()).command, COMMAND.FLUSH);
    assertEquals((await peer.request()).command, COMMAND.FLUSH);
  });
  await using backend = await connect(server);
  await backend.writeAt(filled(10, 1), 0);
  const flushes = [backend.flush(), backend.flush()];
  for (const flush of flushes) await assertRejects(() => flush, IntegrityError);
  await backend.flush();
});

Deno.test("a flush vouches for writes that were flushed, or sent again, or if told to trust", async () => {
  await using server = new ScriptedNbdServer(async (peer, index) => {
    if (index > 0) return await behave(peer);
    await peer.handshake(OFFER);
    await answer(peer, await peer.request(), new Uint8Array(SIZE));
    await answer(peer, await peer.request(), new Uint8Array(SIZE));
    assertEquals((await peer.request()).command, COMMAND.WRITE);
  });
  await using backend = await connect(server);
  await backend.writeAt(filled(10, 1), 0);
  await backend.flush();
  await backend.writeAt(filled(10, 2), 0);
  await backend.flush();

  await using forgetful = new ScriptedNbdServer(async (peer, index) => {
    if (index > 0) return await behave(peer);
    await peer.handshake(OFFER);
    await answer(peer, await peer.request(), new Uint8Array(SIZE));
  });
  await using trusting = await connect(forgetful, { onLostWrites: "ignore" });
  await trusting.writeAt(filled(10, 1), 0);
  await trusting.flush();
});

Deno.test("a request that is late fails, and its buffer is left alone", async () => {
  await using server = new ScriptedNbdServer(async (peer, index) => {
    if (index > 0) return await behave(peer);
    await peer.handshake(OFFER);
    await peer.gone();
  });
  await using backend = await connect(server, { requestTimeout: 50 });
  const error = await assertRejects(
    () => backend.readAt(new Uint8Array(10), 20),
    DeadlineError,
    "did not read 10 bytes at offset 20 within 50 ms",
  );
  assertEquals(error.code, "ETIMEDOUT");
  await backend.readAt(new Uint8Array(10), 20);
});

Deno.test("a write that does not get through is late too", async () => {
  await using server = new ScriptedNbdServer(async (peer, index) => {
    if (index > 0) return await behave(peer);
    await peer.handshake(OFFER);
    await stuck.promise;
  });
  const stuck = Promise.withResolvers<void>();
  await using backend = await connect(server, { requestTimeout: 50 });
  await assertRejects(() => backend.writeAt(new Uint8Array(SIZE), 0), DeadlineError);
  stuck.resolve();
});

Deno.test("told to wait, a late request is sent again and has all its time again", async () => {
  await using server = new ScriptedNbdServer(async (peer, index) => {
    await peer.handshake(OFFER);
    if (index < 3) return await peer.gone();
    const request = await peer.request();
    await new Promise((resolve) => setTimeout(resolve, 50));
    await answer(peer, request, filled(SIZE, 6));
    await peer.gone();
  });
  await using backend = await connect(server, { requestTimeout: 100, onLoss: "wait" });
  const buffer = new Uint8Array(10);
  await backend.readAt(buffer, 0);
  assertEquals(buffer, filled(10, 6));
});

Deno.test("no connection for too long is an error that says why", async () => {
  const server = new ScriptedNbdServer(async (peer) => {
    await peer.handshake(OFFER);
    await peer.request();
  });
  await using backend = await connect(server, { reconnectTimeout: 200 });
  const first = backend.readAt(new Uint8Array(10), 0);
  const looping = await assertRejects(() => first, ConnectionError, "for 200 ms");
  assertEquals(looping.code, "ENOTCONN");
  assert(server.connections < 10, `${server.connections} connections in 200 ms`);
  await server[Symbol.asyncDispose]();
  await assertRejects(
    () => backend.readAt(new Uint8Array(10), 0),
    ConnectionError,
    "there is no such socket",
  );
});

Deno.test("told never to reconnect, it does not", async () => {
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.handshake(OFFER);
    await peer.request();
  });
  await using backend = await connect(server, { reconnectTimeout: 0 });
  for (let count = 0; count < 2; count++) {
    await assertRejects(() => backend.readAt(new Uint8Array(10), 0), ConnectionError);
  }
  assertEquals(server.connections, 1);
});

Deno.test("an export with other flags than before is not taken for the old one", async () => {
  await using server = new ScriptedNbdServer(async (peer, index) => {
    await peer.handshake(index === 0 ? OFFER : { ...OFFER, flags: FLAGS & ~FLAG.SEND_FLUSH });
    if (index === 0) await peer.request();
    else await peer.gone();
  });
  await using backend = await connect(server);
  await assertRejects(() => backend.readAt(new Uint8Array(1), 0), IntegrityError, "its flags");
});

Deno.test("several connections share the requests, and one export", async () => {
  const memory = new Uint8Array(SIZE);
  const counts = [0, 0, 0];
  await using server = new ScriptedNbdServer(async (peer, index) => {
    await peer.handshake({ ...OFFER, flags: FLAGS | FLAG.CAN_MULTI_CONN });
    while (await answer(peer, await peer.request(), memory)) counts[index]!++;
  });
  await using backend = await connect(server, { connections: 3 });
  await Promise.all(
    Array.from({ length: 90 }, (_, index) => backend.writeAt(filled(10, 1), index * 10)),
  );
  await backend.flush();
  assertEquals(memory.subarray(0, 900), filled(900, 1));
  for (const count of counts) assert(count >= 30, `${counts}`);
});

Deno.test("one connection is used where the server cannot have several", async () => {
  await using server = new ScriptedNbdServer((peer) => behave(peer));
  await using backend = await connect(server, { connections: 3 });
  await backend.flush();
  assertEquals(server.connections, 1);
  await assertRejects(() => connect(server, { connections: 0 }), UsageError);
});

Deno.test("close() lets requests under way finish, and says goodbye", async () => {
  let goodbye = false;
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.handshake(OFFER);
    const memory = filled(SIZE, 8);
    const requests = [await peer.request(), await peer.request()];
    await closing.promise;
    for (const request of requests) await answer(peer, request, memory);
    goodbye = (await peer.request()).command === COMMAND.DISC;
  });
  const closing = Promise.withResolvers<void>();
  const backend = await connect(server);
  const buffer = new Uint8Array(10);
  const calls = [backend.readAt(buffer, 0), backend.flush()];
  const closed = backend.close();
  assertThrows(() => backend.readAt(buffer, 0), ClosedError);
  closing.resolve();
  await Promise.all([...calls, closed]);
  assertEquals(buffer, filled(10, 8));
  await backend.close();
  await server[Symbol.asyncDispose]();
  assertEquals(goodbye, true);
});

Deno.test("close() does not wait long for answers that do not come", async () => {
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.handshake(OFFER);
    await peer.gone();
  });
  const backend = await connect(server, { closeTimeout: 100 });
  const call = assertRejects(() => backend.readAt(new Uint8Array(10), 0), ClosedError);
  const start = performance.now();
  await backend.close();
  assert(performance.now() - start >= 90, "What is in flight has its time");
  await call;
});

Deno.test("close() fails what waits for a connection that cannot be had", async () => {
  const lost = Promise.withResolvers<void>();
  await using server = new ScriptedNbdServer(async (peer, index) => {
    if (index > 0) return;
    await peer.handshake(OFFER);
    await peer.request();
  });
  const backend = await connect(server, { log: () => lost.resolve(), onLoss: "wait" });
  const call = assertRejects(() => backend.readAt(new Uint8Array(10), 0), ClosedError);
  await lost.promise;
  await backend.close();
  await call;
});

Deno.test("close() does not wait for a handshake that hangs", async () => {
  const hanging = Promise.withResolvers<void>();
  await using server = new ScriptedNbdServer(async (peer, index) => {
    if (index > 0) {
      hanging.resolve();
      return await peer.gone();
    }
    await peer.handshake(OFFER);
    await peer.request();
  });
  const backend = await connect(server);
  const call = assertRejects(() => backend.readAt(new Uint8Array(10), 0), ClosedError);
  await hanging.promise;
  const start = performance.now();
  await backend.close();
  assert(performance.now() - start < 5000);
  await call;
});

Deno.test("zeroes are written where the server has no WRITE_ZEROES", async () => {
  const memory = filled(SIZE, 1);
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.handshake({ ...OFFER, flags: FLAG.HAS_FLAGS });
    while (await answer(peer, await peer.request(), memory));
  });
  await using backend = await connect(server);
  await writeZeroes(backend, 10, 20);
  assertEquals(
    memory.subarray(0, 40),
    new Uint8Array([...filled(10, 1), ...filled(20, 0), ...filled(10, 1)]),
  );
});

Deno.test("addresses that cannot be are refused", async () => {
  await assertRejects(() => connectNbd("telemap://127.0.0.1"), UsageError, "Cannot speak NBD");
  await assertRejects(() => connectNbd("nbds://127.0.0.1"), UnsupportedError, "TLS");
  await assertRejects(() => connectNbd("nbd+unix:///?socket=/x&shared=1"), UsageError);
});
