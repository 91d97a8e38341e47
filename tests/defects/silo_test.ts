/**
 * What a region promises whose chunks are still elsewhere while programs read and write it, and what
 * implementations of such mounts are known to break: errors that nobody hears of, waits that have no
 * end, and old bytes over new ones.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { concat } from "@std/bytes";
import { cpuUsage } from "node:process";
import { openLibc } from "../../ffi/libc.ts";
import type { Backend } from "../../lib/backend/backend.ts";
import {
  ClosedError,
  ConnectionError,
  DeadlineError,
  IntegrityError,
  ReadOnlyError,
  TelemapError,
  UsageError,
} from "../../lib/backend/errors.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { serve } from "../../lib/host/serve.ts";
import type { FinalizeOptions } from "../../lib/migration/leecher_core.ts";
import { LeechedRegion } from "../../lib/migration/leeched_region.ts";
import { connectTelemap } from "../../lib/rpc/client.ts";
import { contentChecksum } from "../../lib/rpc/checksum.ts";
import { decodeFrame, FLAG, Frame, HEADER_BYTES, LIMIT, TYPE } from "../../lib/rpc/wire.ts";
import { assertBytes, pattern, readBack } from "../backend_model.ts";
import { settle } from "../gate.ts";
import { frameBytes, WirePeer } from "../rpc/wire_peer.ts";
import { ScheduledBackend } from "../scheduled_backend.ts";
import { inTime } from "../in_time.ts";
import { MovingRegion } from "./moving_region.ts";

openLibc();

const CHUNK = 64 << 10, SIZE = 128 * CHUNK, MIB = 1 << 20;

const WAIT: FinalizeOptions = {
  ...{ maxDowntime: 1000, maxTime: 60_000, offerMs: 10_000, confirm: "after", strategy: "wait" },
};
/** Hands over at once, whatever is missing. */
const FORCE: FinalizeOptions = { ...WAIT, maxTime: 0, strategy: "force" };

/** Answers once so many operations of a store wait at its gate. */
async function waiting(moving: MovingRegion, count: number): Promise<void> {
  const late = performance.now() + 5000;
  while (moving.gate.waiting.length < count) {
    assert(performance.now() < late, `Only ${moving.gate.waiting.join(", ")} came to the store`);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}

Deno.test("after a handover, a read overtakes what is pulled, and what is behind it comes next", async () => {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  moving.store.bytes.set(pattern(SIZE, 1));
  moving.gate.hold(/^read/);
  await using target = await moving.leech({ pullWorkers: 1 });
  await waiting(moving, 1);
  await inTime(target.core.finalize(FORCE));
  await waiting(moving, 2);
  const before = moving.gate.log.length;
  const at = 5 * MIB + 1000;
  const read = readBack(target.region, at, 10);
  await waiting(moving, 3);
  assertEquals(moving.gate.log.slice(before), [`read ${5 * MIB}+${CHUNK}`]);
  moving.gate.pass(/^read 5242880/);
  assertBytes(await inTime(read), pattern(SIZE, 1).subarray(at, at + 10), "What is read");
  moving.gate.pass();
  await waiting(moving, 1);
  assertEquals(moving.gate.waiting, [`read ${5 * MIB + CHUNK}+${MIB}`]);
  moving.gate.open();
  await inTime(target.core.complete());
  assertBytes(await readBack(target.region, 0, SIZE), pattern(SIZE, 1), "The region");
});

Deno.test("a chunk that the source cannot read fails a takeover, which can be tried again", async () => {
  const size = 8 * CHUNK, expected = pattern(size, 2);
  await using moving = new MovingRegion({ size, chunkSize: CHUNK });
  moving.store.bytes.set(expected);
  await using target = await moving.leech();
  await target.core.copied();
  expected.set(pattern(CHUNK, 3), 5 * CHUNK);
  await moving.source.writeAt(pattern(CHUNK, 3), 5 * CHUNK);
  moving.fails = (name) => name.startsWith(`read ${5 * CHUNK}+`);
  let answered = false;
  const read = readBack(target.region, 0, size).finally(() => answered = true);
  await assertRejects(() => inTime(target.core.finalize(WAIT)), TelemapError, "Lost before");
  assertEquals([target.core.isOwner, moving.running, answered], [false, true, false]);
  await assertRejects(() => target.core.complete(), TelemapError, "not taken over");
  moving.fails = () => false;
  await inTime(target.core.finalize(WAIT));
  assertBytes(await inTime(read), expected, "What was read meanwhile");
  await inTime(target.core.complete());
});

Deno.test("a source that cannot tell what was written fails a takeover at once", async () => {
  let failing = true;
  const flush = () => {
    if (failing) throw new TelemapError("ENOSPC", "The disk is full");
  };
  await using moving = new MovingRegion({ size: CHUNK, chunkSize: CHUNK, program: { flush } });
  await using target = await moving.leech();
  const error = await assertRejects(() => inTime(target.core.finalize(WAIT)), TelemapError, "full");
  assertEquals([error.code, moving.running, moving.seeder.stage], ["ENOSPC", true, "serving"]);
  assert(!moving.asked.includes("suspend"), "It was not told of before the program stood still");
  failing = false;
  await inTime(target.core.finalize(WAIT));
});

Deno.test("after a handover, a read of a chunk that cannot be had is an error each time", async () => {
  const size = 32 * CHUNK, bad = 20 * CHUNK;
  await using moving = new MovingRegion({ size, chunkSize: CHUNK });
  moving.store.bytes.set(pattern(size, 4));
  moving.gate.hold(/^read/);
  await using target = await moving.leech();
  await inTime(target.core.finalize(FORCE));
  moving.fails = (name) => {
    const [, offset, length] = /^read (\d+)\+(\d+)/.exec(name)?.map(Number) ?? [];
    return offset! <= bad && bad < offset! + length!;
  };
  moving.gate.open();
  for (let turn = 0; turn < 2; turn++) {
    await assertRejects(
      () => inTime(readBack(target.region, bad, 10)),
      TelemapError,
      "Lost before",
    );
  }
  assertEquals(
    await inTime(readBack(target.region, bad - 10, 10)),
    pattern(size, 4).slice(bad - 10, bad),
  );
  moving.fails = () => false;
  assertEquals(
    await inTime(readBack(target.region, bad, 10)),
    pattern(size, 4).slice(bad, bad + 10),
  );
});

/** Reads, again where the deadline of that came before the connection was there. */
async function readUntilAnswered(region: Backend, at: number, length: number): Promise<Uint8Array> {
  for (;;) {
    try {
      return await readBack(region, at, length);
    } catch (error) {
      if (!(error instanceof DeadlineError)) throw error;
    }
  }
}

Deno.test("where requests have a deadline, a reader hears of a dead link, and goes on with a new one", async () => {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  moving.store.bytes.set(pattern(SIZE, 5));
  moving.gate.hold(/^read/);
  await using target = await moving.leech({ connect: { onLoss: "error", requestTimeout: 200 } });
  await inTime(target.core.finalize(FORCE));
  await moving.die();
  const start = performance.now();
  await assertRejects(() => inTime(readBack(target.region, 7 * MIB, 10)), DeadlineError);
  assert(performance.now() - start < 2000, "It took too long");
  moving.gate.open();
  moving.revive();
  const found = await inTime(readUntilAnswered(target.region, 7 * MIB, 10));
  assertBytes(found, pattern(SIZE, 5).subarray(7 * MIB, 7 * MIB + 10), "What is read");
});

Deno.test("else he waits, the log says on whom, and closing ends that", async () => {
  const lines: string[] = [];
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  moving.gate.hold(/^read/);
  const target = await moving.leech({ connect: { log: (line) => void lines.push(line) } });
  await inTime(target.core.finalize(FORCE));
  await moving.die();
  const read = assertRejects(() => readBack(target.region, 7 * MIB, 10), ClosedError);
  await settle();
  assertEquals(lines.filter((line) => line.startsWith(`Lost ${moving.server.url}`)).length, 1);
  await inTime(Promise.all([target.region.close(), read]));
});

Deno.test("a write that waits while a region is offered is refused once it is given, and is nowhere", async () => {
  const confirm = Promise.withResolvers<void>();
  const record = () => confirm.promise;
  await using moving = new MovingRegion({ size: CHUNK, chunkSize: CHUNK, program: { record } });
  await using target = await moving.leech();
  const finalized = target.core.finalize(WAIT);
  await inTime(moving.whenAsked("confirm"));
  const write = assertRejects(
    async () => await moving.source.writeAt(pattern(CHUNK, 6), 0),
    ReadOnlyError,
    "given away",
  );
  confirm.resolve();
  await inTime(Promise.all([finalized, write]));
  await inTime(target.core.complete());
  assertBytes(moving.store.bytes, new Uint8Array(CHUNK), "The source");
  assertBytes(await readBack(target.region, 0, CHUNK), new Uint8Array(CHUNK), "The region");
});

/** Writes to a copy in that cache, which became the region with chunks of it on their way. */
async function writeOverFlights(cache: string, isPlaced: boolean): Promise<void> {
  const expected = pattern(SIZE, 7);
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  moving.store.bytes.set(expected);
  moving.gate.hold(/^read/);
  await using target = await moving.leech({ cache });
  await inTime(target.core.finalize(FORCE));
  await waiting(moving, 1);
  let count = 0;
  const writes = ([[0, CHUNK], [CHUNK + 100, 10], [3 * CHUNK - 5, 9]] as const).map(
    async ([offset, length]) => {
      expected.set(pattern(length, 8), offset);
      await target.region.writeAt(pattern(length, 8), offset);
      count++;
    },
  );
  if (!isPlaced) await inTime(Promise.all(writes));
  await settle();
  assertEquals(count, isPlaced ? 0 : 3);
  moving.gate.open();
  await inTime(Promise.all([target.core.complete(), ...writes]));
  assertBytes(await readBack(target.region, 0, SIZE), expected, "The region");
}

Deno.test("after a handover, a write beats what is on its way from the source", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await writeOverFlights(`file:${directory}/copy`, false);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("it also beats what is being received where it belongs, which it waits for", async () => {
  await writeOverFlights("memory:", true);
});

/** A copy of a region of zeroes, all of which is absent. */
function copyInto(
  local = new ScheduledBackend({ size: CHUNK, step: nothing, fails: () => false }),
) {
  return new LeechedRegion({ remote: openMemory({ size: CHUNK }), local, chunkSize: CHUNK });
}

const nothing = () => Promise.resolve();

Deno.test("a flush is answered no sooner than it is written down that the region is here", async () => {
  await using copy = copyInto();
  const recorded = Promise.withResolvers<void>();
  const owned = copy.own(() => recorded.promise);
  await copy.writeAt(pattern(100, 9), 0);
  let answered = false;
  const flushed = copy.flush().then(() => answered = true);
  await settle();
  assertEquals(answered, false);
  recorded.resolve();
  await inTime(Promise.all([owned, flushed]));
});

/** So long waiting is watched, in ms. */
const WATCHED_MS = 300;

Deno.test("while a program takes its time to suspend, nobody asks again, and nobody is busy", async () => {
  const suspended = Promise.withResolvers<void>();
  await using moving = new MovingRegion({
    ...{ size: SIZE, chunkSize: CHUNK, program: { suspend: () => suspended.promise } },
  });
  await using target = await moving.leech();
  const finalized = target.core.finalize(WAIT);
  await inTime(moving.whenAsked("suspend"));
  await settle();
  const asked = moving.asked.length, used = cpuUsage();
  await new Promise((resolve) => setTimeout(resolve, WATCHED_MS));
  const { user, system } = cpuUsage(used);
  const busy = (user + system) / 1000;
  assertEquals(moving.asked.length, asked);
  assert(busy < WATCHED_MS / 3, `${busy} ms of CPU time in ${WATCHED_MS} ms`);
  suspended.resolve();
  await inTime(finalized);
});

Deno.test("a buffer is its writer's again as soon as a write answered", async () => {
  const size = 32 * CHUNK, expected = pattern(size, 11), buffer = new Uint8Array(CHUNK);
  await using moving = new MovingRegion({ size, chunkSize: CHUNK });
  await using target = await moving.leech({ pullWorkers: 1 });
  const write = async (region: { writeAt: typeof moving.source.writeAt }, chunk: number) => {
    const at = chunk * CHUNK;
    buffer.set(expected.subarray(at, at + CHUNK));
    await region.writeAt(buffer, at);
    buffer.fill(0xee);
  };
  for (let chunk = 0; chunk < 16; chunk++) await write(moving.source, chunk);
  await inTime(target.core.finalize(WAIT));
  for (let chunk = 16; chunk < 32; chunk++) await write(target.region, chunk);
  await inTime(target.core.complete());
  assertBytes(await readBack(target.region, 0, size), expected, "The region");
});

Deno.test("what a store takes late is what was sent, whatever came meanwhile", async () => {
  const PIECES = 32, size = 2 * PIECES * CHUNK, expected = new Uint8Array(size);
  await using moving = new MovingRegion({ size, chunkSize: CHUNK });
  await using remote = await connectTelemap(moving.server.url, { log: () => {} });
  moving.gate.hold(/^write/);
  // Of both lanes.
  const writes = Array.from({ length: PIECES }, async (_, piece) => {
    const length = piece % 2 === 0 ? 5000 : 2 * CHUNK;
    expected.set(pattern(length, piece), 2 * piece * CHUNK);
    await remote.writeAt(pattern(length, piece), 2 * piece * CHUNK);
  });
  await waiting(moving, 2);
  for (let turn = 0; turn < 20; turn++) {
    await remote.control(new Uint8Array(LIMIT.CONTROL).fill(0xee)).catch(() => {});
  }
  moving.gate.open();
  await inTime(Promise.all(writes));
  assertBytes(moving.store.bytes, expected, "The store");
});

Deno.test("a content that changes while it is sent is known by its checksum, and else sent as a copy", async () => {
  const COUNT = 4, length = LIMIT.PAYLOAD_MAX, size = COUNT * length;
  await using server = await serve(`memory:${size}`, "telemap://127.0.0.1:0");
  await using writer = await connectTelemap(server.url, { log: () => {}, compression: "off" });
  await writer.writeAt(pattern(size, 1), 0);
  for (const [version, flags] of [0, FLAG.COPY].entries()) {
    using peer = await WirePeer.dial(server.url);
    await peer.hello();
    const frames = Array.from(
      { length: COUNT },
      (_, id) => frameBytes({ type: TYPE.READ, id, flags, offset: id * length, length }),
    );
    await peer.write(concat(frames));
    // They are more than the sockets take, and under way.
    const header = (await peer.read(HEADER_BYTES))!;
    await writer.writeAt(pattern(size, version + 2), 0);
    let torn = 0;
    for (let left = COUNT; left > 0; left--) {
      const bytes = left === COUNT ? header : (await peer.read(HEADER_BYTES))!;
      const frame = new Frame();
      decodeFrame(new DataView(bytes.buffer), 0, frame, length);
      if (contentChecksum((await peer.read(length))!) !== frame.checksum) torn++;
    }
    assertEquals(torn > 0, flags !== FLAG.COPY, `${torn} of ${COUNT} do not match`);
  }
});

Deno.test("a copy that is not what its source has is an error, and the source is not let go of", async () => {
  await using moving = new MovingRegion({ size: 4 * CHUNK, chunkSize: CHUNK });
  await using target = await moving.leech();
  await inTime(target.core.finalize(WAIT));
  // Past the lock, as no program could.
  moving.store.bytes[2 * CHUNK + 5] = 1;
  await assertRejects(
    () => inTime(target.core.complete()),
    IntegrityError,
    "differs in 1 chunk(s)",
  );
  assertEquals([moving.records, target.core.isOver], [["given"], false]);
  assertEquals((await readBack(target.region, 2 * CHUNK + 5, 1))[0], 0);
});

Deno.test("chunks that cannot be are refused in words, before anything is copied", async () => {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: 5000 });
  await assertRejects(() => moving.leech(), UsageError, "5000");
  assertEquals([moving.gate.log, moving.running], [[], true]);
});

Deno.test("where it cannot be written down that the region is here, a flush says so each time", async () => {
  await using copy = copyInto();
  const full = () => Promise.reject(new TelemapError("ENOSPC", "The disk is full"));
  await assertRejects(() => copy.own(full), TelemapError, "full");
  for (let turn = 0; turn < 2; turn++) {
    await assertRejects(() => inTime(copy.flush()), TelemapError, "full");
  }
});

Deno.test("a store that fails fails the flush and the sync of a region that came to it", async () => {
  let failing = true;
  const fails = (name: string) => failing && name.startsWith("flush");
  const local = new ScheduledBackend({ size: CHUNK, step: nothing, fails });
  await using copy = copyInto(local);
  await copy.writeAt(pattern(CHUNK, 14), 0);
  for (const promise of ["flush", "sync"] as const) {
    await assertRejects(() => inTime(copy[promise]()), ConnectionError);
    // What a store lost then, it cannot be made to keep by another flush.
    await copy.writeAt(pattern(CHUNK, 14), 0);
  }
  failing = false;
  await copy.flush();
  assertBytes(local.kept, pattern(CHUNK, 14), "The copy");
});
