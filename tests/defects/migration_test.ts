/**
 * What moving a region between hosts promises, and what implementations of such mounts are known to
 * break: writes that the destination is never told of, and waits that have no end.
 */
import { assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { ClosedError, errorCode, RemoteError, UsageError } from "../../lib/backend/errors.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { RangeList } from "../../lib/backend/range_list.ts";
import { Draws } from "../../lib/chunk/draws.ts";
import { lockBackend } from "../../lib/chunk/lock.ts";
import { SlowStage } from "../../lib/chunk/slow.ts";
import { trackBackend } from "../../lib/chunk/track.ts";
import { LeechedRegion } from "../../lib/migration/leeched_region.ts";
import type { FinalizeOptions } from "../../lib/migration/leecher_core.ts";
import { SeederClient } from "../../lib/migration/seeder_client.ts";
import { SeederCore } from "../../lib/migration/seeder_core.ts";
import { Seeder } from "../../lib/mount/seeder.ts";
import { assertBytes, pattern, readBack } from "../backend_model.ts";
import { settle } from "../gate.ts";
import { DelayedBackend } from "../rpc/delayed_backend.ts";
import { ScheduledBackend } from "../scheduled_backend.ts";
import { VirtualClock } from "../virtual_clock.ts";
import { inTime } from "../in_time.ts";
import { MovingRegion } from "./moving_region.ts";

openLibc();

const CHUNK = 4096, SIZE = 16 * CHUNK;
const GOAL: FinalizeOptions = {
  ...{ maxDowntime: 1000, maxTime: 60_000, offerMs: 10_000, confirm: "after", strategy: "wait" },
};

/** A source in this isolate, and clients of it. */
function seed(resume = () => {}) {
  const track = trackBackend(openMemory({ size: SIZE }), { chunkSize: CHUNK });
  const lock = lockBackend(track), slow = new SlowStage(lock);
  const program = {
    ...{ flush() {}, suspend() {}, resume, throttle() {}, record() {}, onStage() {} },
  };
  const state = { at: "serving", epoch: 0 } as const;
  const core = new SeederCore({ lock, slow, track, chunkSize: CHUNK, program, state });
  const client = (leech: number) =>
    new SeederClient(
      { control: (message) => core.control(message.slice()) },
      new Uint8Array(16).fill(leech),
    );
  return { core, region: lock, client };
}

Deno.test("what was written is told until it has arrived, to all who follow, and so is what follows", async () => {
  const { region, client } = seed();
  const one = client(1), other = client(2);
  const { trackId } = await one.track({ chunkSize: CHUNK });
  await other.track({ chunkSize: CHUNK });
  const told = async (who: SeederClient, generation: number) => {
    return [...(await who.dirty({ trackId, generation })).ranges.bounds()];
  };
  await region.writeAt(pattern(10, 1), 0);
  assertEquals(await told(one, 0), [0, CHUNK]);
  assertEquals(await told(one, 0), [0, CHUNK], "The answer was lost");
  assertEquals(await told(other, 0), [0, CHUNK]);
  await region.writeAt(pattern(10, 2), 5 * CHUNK);
  assertEquals(await told(one, 1), [5 * CHUNK, 6 * CHUNK]);
  assertEquals(await told(other, 1), [5 * CHUNK, 6 * CHUNK]);
  await region.close();
});

Deno.test("a source tells its size and chunks, whatever chunks it is asked for", async () => {
  const { region, client } = seed();
  const { size, chunkSize } = await client(1).track({ chunkSize: 16 * CHUNK });
  assertEquals([size, chunkSize], [SIZE, CHUNK]);
  await region.close();
});

for (const chunkSize of [CHUNK, 3 * CHUNK, 8 * CHUNK]) {
  for (const tracked of [1000, CHUNK, 4 * CHUNK]) {
    Deno.test(`a copy by chunks of ${chunkSize} follows what is tracked by ${tracked}`, async () => {
      const start = Math.floor(Math.random() * 2 ** 31);
      console.log(`seed ${start}`);
      const draws = new Draws(start, "writes");
      const size = SIZE + 77;
      const source = trackBackend(openMemory({ size }), { chunkSize: tracked });
      source.start();
      const local = openMemory({ size });
      const copy = new LeechedRegion({ remote: source, local, chunkSize });
      await copy.pullFirst([]).complete();
      for (let round = 0; round < 5; round++) {
        for (let write = 0; write < 4; write++) {
          const length = 1 + Math.floor(draws.at(round * 8 + write * 2) * 3000);
          const offset = Math.floor(draws.at(round * 8 + write * 2 + 1) * (size - length));
          await source.writeAt(pattern(length, round * 4 + write), offset);
        }
        await copy.forget(source.collect());
        if (!copy.region.states.complete) await copy.pullFirst([]).complete();
        const expected = await readBack(source, 0, size);
        assertBytes(await readBack(copy, 0, size), expected, `The copy in round ${round}`);
      }
      await copy.close();
    });
  }
}

Deno.test("chunks that were written before they were pulled come, the last one too", async () => {
  const asked = Promise.withResolvers<void>(), answer = Promise.withResolvers<void>();
  const source = new ScheduledBackend({
    size: SIZE,
    step: (name) => {
      if (!/^read.*answered/.test(name)) return Promise.resolve();
      asked.resolve();
      return answer.promise;
    },
    fails: () => false,
  });
  const copy = new LeechedRegion({
    ...{ remote: source, local: openMemory({ size: SIZE }), chunkSize: CHUNK },
  });
  const first = copy.pullFirst([], { workers: 1 });
  await asked.promise;
  source.bytes.set(pattern(SIZE, 3));
  const all = new RangeList();
  all.add(0, SIZE);
  await copy.forget(all);
  answer.resolve();
  await inTime(first.complete());
  assertBytes(await readBack(copy, 0, SIZE), pattern(SIZE, 3), "The copy");
  await copy.keepAll();
  await copy.close();
});

Deno.test("what is locked waits for what is under way, and closing ends what waits", async () => {
  const inner = new DelayedBackend(openMemory({ size: SIZE }));
  const stage = lockBackend(inner);
  const write = stage.writeAt(pattern(10, 4), 0);
  let locked = false;
  const locking = stage.lock().then(() => locked = true);
  await settle();
  assertEquals(locked, false);
  inner.release(0);
  await Promise.all([write, locking]);
  const read = assertRejects(() => readBack(stage, 0, 10), ClosedError);
  await settle();
  assertEquals(inner.count, 0, "Nothing gets through");
  await stage.close();
  await inTime(read);
});

Deno.test("a copy in memory is not compared with the source before it is made", async () => {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  await using target = await moving.leech();
  await inTime(target.core.copied());
  assertEquals(moving.asked, ["track"]);
});

Deno.test("chunks that were all written since they were copied come, the last one too", async () => {
  for (const strategy of ["wait", "force"] as const) {
    await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
    await using target = await moving.leech();
    await target.core.copied();
    await moving.source.writeAt(pattern(SIZE, 5), 0);
    const maxTime = strategy === "force" ? 0 : 60_000;
    await inTime(target.core.finalize({ ...GOAL, strategy, maxTime }));
    await inTime(target.core.complete());
    assertEquals([moving.seeder.stage, target.core.isOver], ["released", true]);
    assertBytes(await readBack(target.region, 0, SIZE), pattern(SIZE, 5), "The region");
  }
});

for (const size of [1, CHUNK - 1, CHUNK + 1, 3 * CHUNK + 5]) {
  Deno.test(`${size} bytes move to the last one`, async () => {
    await using moving = new MovingRegion({ size, chunkSize: CHUNK });
    await using target = await moving.leech();
    await target.core.copied();
    await moving.source.writeAt(new Uint8Array([99]), size - 1);
    await inTime(target.core.finalize(GOAL));
    await inTime(target.core.complete());
    assertEquals((await readBack(target.region, size - 1, 1))[0], 99);
    const { localBytes, compared } = target.core.metrics;
    const chunks = Math.ceil(size / CHUNK);
    assertEquals([localBytes, compared], [size, { equal: chunks, different: 0, left: 0 }]);
  });
}

Deno.test("who uses a region that is not here yet waits, and hears when it will not come", async () => {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  await using target = await moving.leech();
  await target.core.copied();
  const calls = [
    () => target.region.readAt(new Uint8Array(10), 0),
    () => target.region.writeAt(new Uint8Array(10), 0),
  ];
  const refused = calls.map((call) =>
    assertRejects(async () => await call(), ClosedError, "not taken over")
  );
  await inTime((async () => await target.region.flush())());
  await inTime(target.region.abandon());
  await inTime(Promise.all(refused));
});

Deno.test("a leecher that goes away takes nothing with it, and another one gets the region", async () => {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  const one = await moving.leech();
  await one.core.copied();
  await using other = await moving.leech();
  await other.core.copied();
  await moving.source.writeAt(pattern(SIZE, 6), 0);
  await one[Symbol.asyncDispose]();
  assertEquals([moving.running, moving.seeder.stage], [true, "serving"]);
  await inTime(other.core.finalize(GOAL));
  await inTime(other.core.complete());
  assertBytes(await readBack(other.region, 0, SIZE), pattern(SIZE, 6), "The region");
});

Deno.test("of a region that is offered to one, a stranger gets nothing, and ends nothing", async () => {
  const { core, client } = seed();
  const one = client(1), stranger = client(2);
  const { trackId } = await one.track({ chunkSize: CHUNK });
  await one.suspend({ trackId, generation: 0, epoch: 1, timeout: 10_000 });
  const isRefused = async (request: Promise<unknown>) => {
    assertEquals(errorCode(await assertRejects(() => request)), "EPERM");
  };
  await isRefused(stranger.last({ epoch: 1, index: 0 }));
  await isRefused(stranger.confirm({ epoch: 1 }));
  await isRefused(stranger.done({ epoch: 1 }));
  await isRefused(one.done({ epoch: 1 }));
  await stranger.cancel({ epoch: 0 });
  await stranger.outcome({ epoch: 1 });
  assertEquals((await one.confirm({ epoch: 1 })).state, "given");
  await isRefused(stranger.done({ epoch: 1 }));
  await stranger.cancel({ epoch: 0 });
  assertEquals(core.stage, "given");
  assertEquals((await one.done({ epoch: 1 })).state, "released");
});

Deno.test("nobody can use up the epochs under which a region is given", async () => {
  const { client } = seed();
  const one = client(1), stranger = client(2);
  const { trackId } = await one.track({ chunkSize: CHUNK });
  const epoch = Number.MAX_SAFE_INTEGER;
  const calls = [
    () => stranger.outcome({ epoch }),
    () => stranger.suspend({ trackId, generation: 0, epoch, timeout: 10_000 }),
  ];
  for (const call of calls) assertEquals(errorCode(await assertRejects(call)), "EPERM");
  const tracked = await one.track({ chunkSize: CHUNK });
  const next = tracked.epoch + 1;
  await one.suspend({ trackId, generation: 0, epoch: next, timeout: 10_000 });
  assertEquals((await one.confirm({ epoch: next })).state, "given");
});

for (const token of ["sesam", undefined]) {
  Deno.test(`who shows ${token ?? "no token"} asks a source nothing`, async () => {
    await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK, token: "sesame" });
    const error = await assertRejects(() => moving.leech({ connect: { token } }), RemoteError);
    assertEquals([error.code, moving.asked, moving.running], ["EACCES", [], true]);
    await using target = await moving.leech();
    await inTime(target.core.finalize(GOAL));
  });
}

Deno.test("a source lets nobody beyond its host in without a token", async () => {
  const listen = "telemap://0.0.0.0:0";
  const seeding = () => Seeder.open({ backend: "memory:1MiB", listen });
  await assertRejects(seeding, UsageError, "beyond this host");
});

Deno.test("a program stands still for an hour at most, however long it was asked to", async () => {
  using clock = new VirtualClock();
  const resumed = Promise.withResolvers<void>();
  const { core, client } = seed(resumed.resolve);
  const leecher = client(1);
  const { trackId } = await leecher.track({ chunkSize: CHUNK });
  await leecher.suspend({ trackId, generation: 0, epoch: 1, timeout: 2 ** 32 - 1 });
  await clock.run(resumed.promise);
  assertEquals([performance.now() / 60_000, core.stage], [60, "serving"]);
});
