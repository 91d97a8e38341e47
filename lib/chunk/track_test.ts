/** The stage that tracks writes: the contract, what it collects, and that it loses nothing. */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { openLibc } from "../../ffi/libc.ts";
import type { Awaitable, Backend } from "../backend/backend.ts";
import { UsageError } from "../backend/errors.ts";
import { openMemory } from "../backend/memory.ts";
import { openPattern } from "../backend/pattern.ts";
import { type ByteRange, RangeList } from "../backend/range_list.ts";
import { testBackend } from "../../tests/backend_conformance.ts";
import { pattern } from "../../tests/backend_model.ts";
import { BlockBackend } from "../../tests/block_backend.ts";
import { trackBackend, type TrackedBackend } from "./track.ts";

openLibc();

const MIB = 1 << 20;

testBackend("memory that could be tracked", {
  open: () => trackBackend(openMemory({ size: 5 * MIB + 1234 }), { chunkSize: 65536 }),
});
testBackend("1 TiB of memory in tracked chunks of 64 KiB", {
  open: () => started(openMemory({ size: 2 ** 40 }), 65536),
  runs: 3,
});
testBackend("slow blocks in tracked chunks of 1000 bytes", {
  open: () => started(new BlockBackend({ size: 4 * MIB, blockSize: 512, seed: 5 }), 1000),
});

function started(backend: Backend, chunkSize: number): TrackedBackend {
  const stage = trackBackend(backend, { chunkSize });
  stage.start();
  return stage;
}

Deno.test("what was written, zeroed or discarded is collected once, in whole chunks", async () => {
  await using stage = started(openMemory({ size: 10_000 }), 1000);
  const collected = () => [...stage.collect()];
  assertEquals(collected(), []);
  stage.writeAt(pattern(10, 1), 995);
  stage.zero!(5000, 1);
  stage.discard!(7999, 1);
  stage.writeAt(new Uint8Array(0), 3000);
  stage.readAt(new Uint8Array(100), 8000);
  const expected: ByteRange[] = [
    { offset: 0, length: 2000 },
    { offset: 5000, length: 1000 },
    { offset: 7000, length: 1000 },
  ];
  assertEquals(collected(), expected);
  assertEquals(collected(), []);
});

Deno.test("the last chunk ends with the region", async () => {
  await using stage = started(openMemory({ size: 10_001 }), 1000);
  stage.writeAt(pattern(1, 1), 10_000);
  assertEquals([...stage.collect()], [{ offset: 10_000, length: 1 }]);
  stage.writeAt(pattern(10_001, 1), 0);
  assertEquals([...stage.collect()], [{ offset: 0, length: 10_001 }]);
});

Deno.test("nothing is collected that is not tracked", async () => {
  await using stage = trackBackend(openMemory({ size: 10_000 }), { chunkSize: 1000 });
  stage.writeAt(pattern(10, 1), 0);
  assertThrows(() => stage.collect(), UsageError, "start()");
  assertThrows(() => stage.restore(new RangeList()), UsageError, "start()");
  stage.start();
  assertEquals([...stage.collect()], []);
  stage.writeAt(pattern(10, 1), 0);
  stage.start();
  assertEquals([...stage.collect()], []);
  stage.stop();
  assertThrows(() => stage.collect(), UsageError);
});

Deno.test("restored ranges are collected again, by whole chunks of the region", async () => {
  await using stage = started(openMemory({ size: 9500 }), 1000);
  const ranges = new RangeList();
  ranges.add(2500, 2501);
  ranges.add(9000, 9500);
  stage.restore(ranges);
  assertEquals([...stage.collect()], [{ offset: 2000, length: 1000 }, {
    offset: 9000,
    length: 500,
  }]);
  ranges.add(9500, 9501);
  assertThrows(() => stage.restore(ranges), RangeError);
});

Deno.test("what was refused is not collected, what failed is", async () => {
  let answer: () => Awaitable<void> = () => {};
  const stage = started(bareBackend(10_000, { readAt: () => {}, writeAt: () => answer() }), 1000);
  assertThrows(() => stage.writeAt(pattern(10, 1), 9995), RangeError);
  assertEquals([...stage.collect()], []);
  answer = () => {
    throw new Error("Cannot write all of it");
  };
  assertThrows(() => stage.writeAt(pattern(10, 1), 0), Error, "all of it");
  assertEquals([...stage.collect()], [{ offset: 0, length: 1000 }]);
  answer = () => Promise.reject(new Error("Cannot write all of it"));
  await assertRejects(async () => await stage.writeAt(pattern(10, 1), 0), Error, "all of it");
  assertEquals([...stage.collect()], [{ offset: 0, length: 1000 }]);
});

/** A backend that can nothing but what is given. */
function bareBackend(size: number, calls: Pick<Backend, "readAt" | "writeAt">): Backend {
  return {
    ...{ size, blockSize: 1, durable: false, readOnly: false },
    ...calls,
    flush: () => {},
    close: () => {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

Deno.test("chunks that cannot be tracked are refused", () => {
  const inner = openPattern({ size: 2 ** 40 });
  for (const chunkSize of [0, -1, 0.5, NaN, Infinity, 511]) {
    assertThrows(() => trackBackend(inner, { chunkSize }), UsageError);
  }
  trackBackend(inner, { chunkSize: 512 });
});

const SIZE = 12;

/** A region whose writes take effect in two parts, each whenever the scheduler chooses. */
class ScheduledBackend {
  readonly bytes = new Uint8Array(SIZE);
  readonly #scheduler: fc.Scheduler;

  constructor(scheduler: fc.Scheduler) {
    this.#scheduler = scheduler;
  }

  async readAt(buffer: Uint8Array, offset: number): Promise<void> {
    for (const part of halves(buffer)) {
      await this.#scheduler.schedule(Promise.resolve(), "read");
      part.set(this.bytes.subarray(offset, offset + part.length));
      offset += part.length;
    }
    await this.#scheduler.schedule(Promise.resolve(), "answer to a read");
  }

  async writeAt(buffer: Uint8Array, offset: number): Promise<void> {
    for (const part of halves(buffer)) {
      await this.#scheduler.schedule(Promise.resolve(), "write");
      this.bytes.set(part, offset);
      offset += part.length;
    }
    await this.#scheduler.schedule(Promise.resolve(), "answer to a write");
  }
}

function halves(buffer: Uint8Array): Uint8Array[] {
  const middle = buffer.length >> 1;
  return [buffer.subarray(0, middle), buffer.subarray(middle)];
}

const writes = fc.array(
  fc.record({ offset: fc.nat(SIZE - 1), length: fc.integer({ min: 1, max: 6 }) }),
  { minLength: 1, maxLength: 8 },
);

/** Copies ranges of a region; where one in three fails, it has to be copied once more. */
async function copy(from: Backend, to: Uint8Array, ranges: RangeList): Promise<RangeList> {
  const failed = new RangeList();
  for (const { offset, length } of ranges) {
    const bytes = new Uint8Array(length);
    await from.readAt(bytes, offset);
    if ((bytes[0]! + offset) % 3 === 1) failed.add(offset, offset + length);
    else to.set(bytes, offset);
  }
  return failed;
}

Deno.test("a copy that follows collections misses nothing, however writes and reads interleave", async () => {
  const property = fc.asyncProperty(
    fc.scheduler(),
    writes,
    fc.constantFrom(1, 2, 5),
    fc.nat(3),
    async (scheduler, all, chunkSize, rounds) => {
      const inner = new ScheduledBackend(scheduler);
      const stage = trackBackend(
        bareBackend(SIZE, {
          readAt: (buffer, offset) => inner.readAt(buffer, offset),
          writeAt: (buffer, offset) => inner.writeAt(buffer, offset),
        }),
        { chunkSize },
      );
      const writing = all.map(async ({ offset, length }, index) => {
        await scheduler.schedule(Promise.resolve(), "begin a write");
        const bytes = new Uint8Array(Math.min(length, SIZE - offset)).fill(index + 1);
        await stage.writeAt(bytes, offset);
      });
      const mirror = new Uint8Array(SIZE);
      const copying = (async () => {
        await scheduler.schedule(Promise.resolve(), "start");
        stage.start();
        await stage.readAt(mirror, 0);
        for (let round = 0; round < rounds; round++) {
          await scheduler.schedule(Promise.resolve(), "collect");
          stage.restore(await copy(stage, mirror, stage.collect()));
        }
      })();
      await scheduler.waitFor(Promise.all([...writing, copying]));
      for (const { offset, length } of stage.collect()) {
        mirror.set(inner.bytes.subarray(offset, offset + length), offset);
      }
      assertEquals(mirror, inner.bytes);
    },
  );
  await fc.assert(property, { numRuns: 2000 });
});
