import { openLibc } from "../../ffi/libc.ts";
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { Awaitable } from "../backend/backend.ts";
import { openMemory } from "../backend/memory.ts";
import { errorCode, ReadOnlyError, TelemapError } from "../backend/errors.ts";
import { VirtualClock } from "../../tests/virtual_clock.ts";
import { digestOf } from "../chunk/digests.ts";
import { lockBackend } from "../chunk/lock.ts";
import { SlowStage } from "../chunk/slow.ts";
import { trackBackend } from "../chunk/track.ts";
import { SeederClient } from "./seeder_client.ts";
import { type SeededProgram, SeederCore } from "./seeder_core.ts";

openLibc();

const CHUNK = 4096, SIZE = 16 * CHUNK;

class Program implements SeededProgram {
  running = true;
  records: string[] = [];
  states: string[] = [];
  rates: number[] = [];
  /** Failures of the next records. */
  failures = 0;
  suspending: () => Promise<void> = () => Promise.resolve();
  flush: () => Awaitable<void> = () => {};
  async suspend(): Promise<void> {
    await this.suspending();
    this.running = false;
  }
  resumptions = 0;
  resume(): void {
    this.resumptions++;
    this.running = true;
  }
  record(state: string, { epoch }: { epoch: number }): void {
    if (this.failures-- > 0) throw new Error("the disk is full");
    this.records.push(`${state} ${epoch}`);
  }
  throttle(rate: number): void {
    this.rates.push(rate);
  }
  onStage(stage: string): void {
    this.states.push(stage);
  }
}

function seed() {
  const track = trackBackend(openMemory({ size: SIZE }), { chunkSize: CHUNK });
  const lock = lockBackend(track), slow = new SlowStage(lock);
  const program = new Program();
  const core = new SeederCore({
    ...{ lock, slow, track, chunkSize: CHUNK, program },
    state: { at: "serving", epoch: 0 },
  });
  const client = (leech: number) =>
    new SeederClient(
      { control: (message) => core.control(message.slice()) },
      new Uint8Array(16).fill(leech),
    );
  return { core, lock, slow, program, client };
}

const timeout = 10_000;

Deno.test("a region is given once, with what was written last, and refuses writes from then on", async () => {
  const { core, lock, program, client } = seed();
  const leecher = client(1);
  await lock.writeAt(new Uint8Array(CHUNK), 0);
  const { trackId, epoch } = await leecher.track({ chunkSize: CHUNK });
  await lock.writeAt(new Uint8Array(CHUNK).fill(9), 5 * CHUNK);
  const offer = await leecher.suspend({ trackId, generation: 0, epoch: epoch + 1, timeout });
  assertEquals([...offer.ranges.bounds()], [5 * CHUNK, 6 * CHUNK]);
  assertEquals([program.running, core.stage], [false, "offered"]);
  const piece = await leecher.last({ epoch: 1, index: 0 });
  assertEquals([piece.index, piece.content.length, piece.content[0]], [0, CHUNK, 9]);
  assertEquals((await leecher.last({ epoch: 1, index: 1 })).content.length, 0);
  const given = await leecher.confirm({ epoch: 1 });
  assertEquals([given.state, given.epoch], ["given", 1]);
  assertThrows(() => lock.writeAt(new Uint8Array(1), 0), ReadOnlyError, "given away");
  assertEquals((await leecher.confirm({ epoch: 1 })).state, "given");
  assertEquals((await leecher.done({ epoch: 1 })).state, "released");
  assertEquals(program.records, ["given 1", "released 1"]);
  await assertRejects(() => core.takeBack(), TelemapError, "given away");
});

Deno.test("an offer that nobody confirms is taken back, and cannot be confirmed any more", async () => {
  const { core, lock, program, client } = seed();
  const leecher = client(1);
  const { trackId } = await leecher.track({ chunkSize: CHUNK });
  await leecher.suspend({ trackId, generation: 0, epoch: 1, timeout: 20 });
  // Held until the offer is over.
  await lock.writeAt(new Uint8Array(1), 0);
  await core.takeBack();
  assertEquals([core.stage, program.running], ["serving", true]);
  const error = await assertRejects(() => leecher.confirm({ epoch: 1 }));
  assertEquals(errorCode(error), "EPERM");
  const again = await assertRejects(() =>
    leecher.suspend({ trackId, generation: 1, epoch: 1, timeout })
  );
  assertEquals(errorCode(again), "EPERM");
  assertEquals((await leecher.suspend({ trackId, generation: 1, epoch: 2, timeout })).epoch, 2);
  core.close();
});

/** By how long each flush takes, in ms: how many there were before the program was suspended. */
const FLUSHES: [what: string, took: number[], ahead: number][] = [
  ["one that was short is enough", [2, 1], 1],
  ["they go on until one was short", [40, 20, 10, 2, 1], 4],
  ["one that was long is not followed by another", [60, 1], 1],
  ["one that was no shorter is the last", [20, 19, 1], 2],
  ["five are the most", [40, 30, 22, 16, 12, 9, 1], 5],
];

for (const [what, took, ahead] of FLUSHES) {
  Deno.test(`what a running program wrote is flushed before it is suspended: ${what}`, async () => {
    using clock = new VirtualClock();
    const { core, program, client } = seed();
    const leecher = client(1);
    const { trackId } = await leecher.track({ chunkSize: CHUNK });
    let flushes = 0, before = 0;
    program.flush = () => new Promise((resolve) => setTimeout(resolve, took[flushes++]));
    program.suspending = () => Promise.resolve(void (before = flushes));
    const offer = { trackId, generation: 0, epoch: 1, timeout };
    const { prepareMs, flushMs } = await clock.run(leecher.suspend(offer));
    assertEquals([before, flushes], [ahead, ahead + 1]);
    assertEquals(prepareMs, took.slice(0, ahead).reduce((sum, each) => sum + each));
    assertEquals(flushMs, took[ahead]);
    core.close();
  });
}

Deno.test("a leecher that cancels has the program go on at once", async () => {
  const { core, program, client } = seed();
  const leecher = client(1);
  const { trackId } = await leecher.track({ chunkSize: CHUNK });
  await leecher.suspend({ trackId, generation: 0, epoch: 1, timeout });
  assertEquals((await leecher.cancel({ epoch: 0 })).state, "serving");
  assertEquals([core.stage, program.running], ["serving", true]);
});

Deno.test("a leecher that cancels while the program is flushed leaves it alone", async () => {
  const { core, program, client } = seed();
  const leecher = client(1);
  const { trackId } = await leecher.track({ chunkSize: CHUNK });
  const flush = Promise.withResolvers<void>(), begun = Promise.withResolvers<void>();
  let flushes = 0, suspensions = 0;
  program.flush = () => {
    begun.resolve();
    return flushes++ === 0 ? flush.promise : undefined;
  };
  program.suspending = () => Promise.resolve(void suspensions++);
  const asked = assertRejects(() => leecher.suspend({ trackId, generation: 0, epoch: 1, timeout }));
  await begun.promise;
  assertEquals((await leecher.cancel({ epoch: 0 })).state, "serving");
  flush.resolve();
  await asked;
  const again = await leecher.track({ chunkSize: CHUNK });
  await leecher.suspend({ trackId: again.trackId, generation: 0, epoch: 2, timeout });
  assertEquals([suspensions, program.resumptions, program.running], [1, 0, false]);
  core.close();
});

Deno.test("a leecher that cancels while a program that has stopped is flushed has it go on once", async () => {
  const { core, program, client } = seed();
  const leecher = client(1);
  const { trackId } = await leecher.track({ chunkSize: CHUNK });
  const flush = Promise.withResolvers<void>(), begun = Promise.withResolvers<void>();
  program.flush = () => {
    if (program.running) return;
    begun.resolve();
    return flush.promise;
  };
  const asked = assertRejects(() => leecher.suspend({ trackId, generation: 0, epoch: 1, timeout }));
  await begun.promise;
  assertEquals((await leecher.cancel({ epoch: 0 })).state, "serving");
  flush.resolve();
  await asked;
  // What is asked later comes behind it.
  program.flush = () => {};
  const again = await leecher.track({ chunkSize: CHUNK });
  await leecher.suspend({ trackId: again.trackId, generation: 0, epoch: 2, timeout });
  assertEquals([program.resumptions, program.running], [1, false]);
  core.close();
});

Deno.test("what is offered to one is not offered to another", async () => {
  const { core, client } = seed();
  const one = client(1), other = client(2);
  const { trackId } = await one.track({ chunkSize: CHUNK });
  await other.track({ chunkSize: CHUNK });
  await one.suspend({ trackId, generation: 0, epoch: 1, timeout });
  const busy = await assertRejects(() =>
    other.suspend({ trackId, generation: 0, epoch: 2, timeout })
  );
  assertEquals(errorCode(busy), "EBUSY");
  assertEquals(errorCode(await assertRejects(() => other.confirm({ epoch: 1 }))), "EPERM");
  await other.cancel({ epoch: 0 });
  assertEquals((await one.confirm({ epoch: 1 })).state, "given");
  core.close();
});

Deno.test("a question that is repeated has one answer, and suspends once", async () => {
  const { core, program, client } = seed();
  const leecher = client(1);
  const { trackId } = await leecher.track({ chunkSize: CHUNK });
  const ask = () => leecher.suspend({ trackId, generation: 0, epoch: 1, timeout });
  const [first, second] = await Promise.all([ask(), ask()]);
  assertEquals(first, second);
  assertEquals(await ask(), first);
  assertEquals(program.states.filter((state) => state === "suspending").length, 1);
  core.close();
});

Deno.test("a program that does not suspend in time goes on", async () => {
  const { core, program, client } = seed();
  const leecher = client(1);
  program.suspending = () => new Promise(() => {});
  const { trackId } = await leecher.track({ chunkSize: CHUNK });
  const late = await assertRejects(() =>
    leecher.suspend({ trackId, generation: 0, epoch: 1, timeout: 10 })
  );
  assertEquals([errorCode(late), core.stage, program.running], ["ETIMEDOUT", "serving", true]);
});

Deno.test("a suspension that is over late does not let go what was offered since", async () => {
  const { core, lock, program, client } = seed();
  const late = Promise.withResolvers<void>();
  program.suspending = () => late.promise;
  const [first, second] = [client(1), client(2)];
  const { trackId } = await first.track({ chunkSize: CHUNK });
  await assertRejects(
    () => first.suspend({ trackId, generation: 0, epoch: 1, timeout: 20 }),
    TelemapError,
  );
  await second.track({ chunkSize: CHUNK });
  while (core.stage !== "serving") await new Promise((resolve) => setTimeout(resolve, 1));
  program.suspending = () => Promise.resolve();
  const offered = second.suspend({ trackId, generation: 0, epoch: 2, timeout });
  late.resolve();
  await offered;
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals([core.stage, program.running], ["offered", false]);
  const writing = assertRejects(async () => {
    await lock.writeAt(new Uint8Array(CHUNK), 0);
  }, ReadOnlyError);
  await second.confirm({ epoch: 2 });
  await writing;
});

Deno.test("a record that cannot be written is tried again, and nothing is taken back meanwhile", async () => {
  const { core, program, client } = seed();
  const leecher = client(1);
  program.failures = 2;
  const { trackId } = await leecher.track({ chunkSize: CHUNK });
  await leecher.suspend({ trackId, generation: 0, epoch: 1, timeout });
  const giving = leecher.confirm({ epoch: 1 });
  await assertRejects(() => core.takeBack(), TelemapError, "given away");
  assertEquals((await giving).state, "given");
  assertEquals([program.running, program.records.length], [false, 1]);
});

Deno.test("who was told by another seeder has to begin anew", async () => {
  const { client } = seed();
  const leecher = client(1);
  await leecher.track({ chunkSize: CHUNK });
  const trackId = new Uint8Array(16);
  const stale = await assertRejects(() => leecher.dirty({ trackId, generation: 0 }));
  assertEquals(errorCode(stale), "ESTALE");
});

Deno.test("digests are of what the region holds, also after it was written", async () => {
  const { lock, client } = seed();
  const leecher = client(1);
  const { trackId } = await leecher.track({ chunkSize: CHUNK });
  const zeroes = digestOf(new Uint8Array(CHUNK));
  assertEquals((await leecher.digests({ chunk: 15, count: 9 })).digests, zeroes);
  const content = new Uint8Array(CHUNK).fill(5);
  await lock.writeAt(content, 15 * CHUNK);
  await leecher.dirty({ trackId, generation: 0 });
  assertEquals((await leecher.digests({ chunk: 15, count: 1 })).digests, digestOf(content));
});

Deno.test("a program is slowed until nobody asks for that any more", async () => {
  const { core, slow, program, client } = seed();
  const leecher = client(1);
  const { trackId, epoch } = await leecher.track({ chunkSize: CHUNK });
  const isSlow = () => slow.writeAt(new Uint8Array(1), 0) !== undefined;
  assertEquals(isSlow(), false);
  await leecher.throttle({ rate: 1000, milliseconds: 60_000 });
  assertEquals([isSlow(), program.rates], [true, [1000]]);
  await leecher.cancel({ epoch: 0 });
  assertEquals([isSlow(), program.rates], [false, [1000, Infinity]]);
  await leecher.track({ chunkSize: CHUNK });
  await leecher.throttle({ rate: 5, milliseconds: 60_000 });
  await leecher.suspend({ trackId, generation: 0, epoch: epoch + 1, timeout });
  assertEquals(program.rates, [1000, Infinity, 5, Infinity]);
  // One that comes late is not for a program that stands still.
  await leecher.throttle({ rate: 5, milliseconds: 60_000 });
  assertEquals(program.rates.length, 4);
  core.close();
});

Deno.test("whoever slows a program and is gone does so for a while only", async () => {
  const { core, slow, program, client } = seed();
  const leecher = client(1);
  await leecher.track({ chunkSize: CHUNK });
  await leecher.throttle({ rate: 1, milliseconds: 1 });
  // It goes on as the time is over.
  await slow.writeAt(new Uint8Array(CHUNK), 0);
  await slow.writeAt(new Uint8Array(CHUNK), 0);
  assertEquals(program.rates, [1, Infinity]);
  core.close();
});
