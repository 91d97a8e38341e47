/**
 * The stage that delays: the contract, how long calls take at least, and what the seed decides.
 *
 * Times are held to lower bounds, as a busy machine makes everything longer. Where calls are to go
 * on side by side, the bound above is what they would take one after the other.
 */
import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import type { Backend } from "../backend/backend.ts";
import { ClosedError, ReadOnlyError, TelemapError, UsageError } from "../backend/errors.ts";
import { openMemory } from "../backend/memory.ts";
import { openPattern } from "../backend/pattern.ts";
import { testBackend } from "../../tests/backend_conformance.ts";
import { pattern, readBack } from "../../tests/backend_model.ts";
import { BlockBackend } from "../../tests/block_backend.ts";
import { delayBackend, type DelayOptions } from "./delay.ts";

openLibc();

const MIB = 1 << 20;

testBackend("memory at no distance", {
  open: () => delayBackend(openMemory({ size: 5 * MIB + 1234 })),
});
testBackend("memory behind a slow link", {
  open: () => delayBackend(openMemory({ size: 5 * MIB }), { rtt: 0.2, rate: 2e9, jitter: 0.3 }),
  runs: 5,
});
testBackend("slow blocks behind a link that is often silent", {
  open: () =>
    delayBackend(new BlockBackend({ size: 4 * MIB, blockSize: 512, seed: 3 }), {
      cuts: { silence: 1, period: 5 },
      seed: 4,
    }),
  runs: 5,
});

/** Milliseconds that something takes. */
async function duration(run: () => unknown): Promise<number> {
  const begun = performance.now();
  await run();
  return performance.now() - begun;
}

function assertAtLeast(actual: number, expected: number): void {
  // Times are sums of fractions.
  assert(actual >= expected - 1e-6, `${actual} ms are less than ${expected} ms`);
}

Deno.test("every call takes a round trip", async () => {
  await using backend = delayBackend(openMemory({ size: 65536 }), { rtt: 8 });
  const calls = [
    () => backend.readAt(new Uint8Array(10), 0),
    () => backend.writeAt(pattern(10, 1), 0),
    () => backend.zero!(0, 10),
    () => backend.discard!(0, 10),
    () => backend.extents!(0, 10),
    () => backend.flush(),
  ];
  for (const call of calls) assertAtLeast(await duration(call), 8);
});

Deno.test("calls side by side take their round trips at once", async () => {
  await using backend = delayBackend(openMemory({ size: 65536 }), { rtt: 50 });
  const all = await duration(() =>
    Promise.all(Array.from({ length: 200 }, () => backend.readAt(new Uint8Array(1), 0)))
  );
  assertAtLeast(all, 50);
  assert(all < 200 * 50, `${all} ms is what they take one after the other`);
});

Deno.test("a write is at the other end after half of its time, and not before", async () => {
  const inner = openMemory({ size: 65536 });
  await using backend = delayBackend(inner, { rtt: 40 });
  const begun = performance.now();
  const write = backend.writeAt(pattern(10, 1), 0);
  const arrived = async () => (await readBack(inner, 0, 1))[0] === pattern(1, 1)[0];
  while (!await arrived()) await new Promise((resolve) => setTimeout(resolve, 1));
  assertAtLeast(performance.now() - begun, 20);
  await write;
  assertAtLeast(performance.now() - begun, 40);
});

Deno.test("what travels shares the rate of its way", async () => {
  await using backend = delayBackend(openMemory({ size: MIB }), { rtt: 5, rate: 20e6 });
  const all = (call: (index: number) => unknown) =>
    duration(() => Promise.all(Array.from({ length: 20 }, (_, index) => call(index))));
  const bytes = pattern(100_000, 1);
  // 2 MB of 20 MB a second, less what an idle link may be ahead.
  assertAtLeast(await all(() => backend.writeAt(bytes, 0)), 105 - 0.25);
  assertAtLeast(await all(() => backend.readAt(new Uint8Array(100_000), 0)), 105 - 0.25);
});

for (const readsUrgently of [false, true]) {
  Deno.test(`a small read ${readsUrgently ? "passes" : "stands behind"} large ones as at its backend`, async () => {
    const inner = Object.assign(openMemory({ size: MIB }), { readsUrgently });
    await using backend = delayBackend(inner, { rtt: 2, rate: 20e6 });
    const order: string[] = [];
    const read = async (name: string, length: number) => {
      await backend.readAt(new Uint8Array(length), 0);
      order.push(name);
    };
    await Promise.all([read("large", MIB), read("small", 4096)]);
    assertEquals(order, readsUrgently ? ["small", "large"] : ["large", "small"]);
  });
}

Deno.test("jitter adds to the round trip, and changes the order of answers", async () => {
  await using backend = delayBackend(openMemory({ size: 65536 }), { rtt: 2, jitter: 30, seed: 1 });
  const order: number[] = [];
  await Promise.all(Array.from({ length: 20 }, async (_, index) => {
    assertAtLeast(await duration(() => backend.readAt(new Uint8Array(1), 0)), 2);
    order.push(index);
  }));
  assertNotEquals(order, order.toSorted((a, b) => a - b));
});

Deno.test("a link rests while it is silent", async () => {
  await using backend = delayBackend(openMemory({ size: 65536 }), {
    rate: 10e6,
    cuts: { silence: 19, period: 20 },
  });
  // 4 ms of sending, of which each period of 20 ms has one: three silences at least lie between.
  assertAtLeast(await duration(() => backend.writeAt(new Uint8Array(42_500), 0)), 3 * 19);
});

/** Which of a hundred writes fail, and which of them are done. */
async function failures(options: DelayOptions): Promise<{ failed: number[]; done: number[] }> {
  const inner = openMemory({ size: 100 });
  const backend = delayBackend(inner, options);
  const failed: number[] = [];
  for (let index = 0; index < 100; index++) {
    try {
      await backend.writeAt(new Uint8Array([1]), index);
    } catch (error) {
      assert(error instanceof TelemapError && error.code === "EIO", `${error}`);
      failed.push(index);
    }
  }
  const done = failed.filter((index) => inner.memory.bytes[index] === 1);
  await backend.close();
  return { failed, done };
}

Deno.test("the seed decides which calls fail, and whether they are done all the same", async () => {
  const { failed, done } = await failures({ errors: 0.3, seed: 5 });
  assert(failed.length > 15 && failed.length < 50, `${failed}`);
  assert(done.length > 0 && done.length < failed.length, `${done} of ${failed}`);
  assertEquals(await failures({ errors: 0.3, seed: 5 }), { failed, done });
  assertNotEquals((await failures({ errors: 0.3, seed: 6 })).failed, failed);
  assertEquals((await failures({})).failed, []);
  assertEquals((await failures({ errors: 1 })).failed.length, 100);
});

Deno.test("what fails takes a round trip as well", async () => {
  await using backend = delayBackend(openMemory({ size: 10 }), { rtt: 8, errors: 1 });
  const failing = () => assertRejects(async () => await backend.flush(), TelemapError, "errors=1");
  assertAtLeast(await duration(failing), 8);
});

Deno.test("what can be refused at once is", async () => {
  const backend = delayBackend(openPattern({ size: 100 }), { rtt: 60_000 });
  assertThrows(() => backend.readAt(new Uint8Array(10), 99), RangeError);
  assertThrows(() => backend.writeAt(new Uint8Array(10), 0), ReadOnlyError);
  assertEquals([backend.zero, backend.discard, backend.extents], [undefined, undefined, undefined]);
  const memory: Backend = delayBackend(openMemory({ size: 100 }));
  assertEquals([memory.memory, memory.share, memory.writesAtOnce], Array(3).fill(undefined));
  await memory.close();
  await backend.close();
});

Deno.test("closing waits for nothing, and refuses what is on its way", async () => {
  const inner = openMemory({ size: 100 });
  const backend = delayBackend(inner, { rtt: 120_000 });
  const underWay = [backend.readAt(new Uint8Array(1), 0), backend.flush()];
  const refused = underWay.map((call) => assertRejects(async () => await call, ClosedError));
  await backend.close();
  await Promise.all(refused);
  await assertRejects(async () => await backend.readAt(new Uint8Array(1), 0), ClosedError);
});

Deno.test("delays that make no sense are refused", () => {
  const wrong: DelayOptions[] = [
    { rtt: -1 },
    { rtt: NaN },
    { rtt: Infinity },
    { rate: 0 },
    { rate: NaN },
    { jitter: -1 },
    { errors: -0.1 },
    { errors: 1.1 },
    { cuts: { silence: 10, period: 10 } },
    { cuts: { silence: -1, period: 10 } },
    { cuts: { silence: 0, period: Infinity } },
    { seed: 0.5 },
    { seed: -1 },
  ];
  const inner = openPattern({ size: 100 });
  for (const options of wrong) {
    assertThrows(() => delayBackend(inner, options), UsageError, "Cannot delay");
  }
});
