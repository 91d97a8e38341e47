/** The stage for backends of whole blocks: the contract, and writes that meet in a block. */
import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { openLibc } from "../ffi/libc.ts";
import type { Backend } from "../lib/backend/backend.ts";
import { UnsupportedError } from "../lib/backend/errors.ts";
import { openMemory } from "../lib/backend/memory.ts";
import { alignBackend } from "../lib/chunk/align.ts";
import { testBackend } from "./backend_conformance.ts";
import { assertBytes, assertExtents, pattern, readBack } from "./backend_model.ts";
import { BlockBackend } from "./block_backend.ts";

openLibc();

const MIB = 1 << 20;

const shapes = [
  { name: "blocks of 512 bytes, aligned", size: 5 * MIB, blockSize: 512 },
  { name: "blocks of 520 bytes with an odd tail, aligned", size: 4 * MIB + 77, blockSize: 520 },
  { name: "slow blocks of 4096 bytes, aligned", size: 4 * MIB + 1, blockSize: 4096, seed: 1 },
  { name: "blocks without zeroing, aligned", size: MIB, blockSize: 4096, seed: 2, zeroless: true },
  { name: "one block over the whole region, aligned", size: 300_001, blockSize: 1 << 20, seed: 3 },
];
for (const { name, ...options } of shapes) {
  testBackend(name, { open: () => alignBackend(new BlockBackend(options)) });
}

Deno.test("a backend that needs no alignment is not wrapped", () => {
  const backend = openMemory({ size: 4096 });
  assertStrictEquals(alignBackend(backend), backend);
  backend.close();
});

Deno.test("whole blocks are answered at once, by one call and in the caller's buffer", () => {
  const inner = new BlockBackend({ size: 10_000, blockSize: 512 });
  const backend = alignBackend(inner);
  assertEquals(backend.writeAt(pattern(1024, 1), 512), undefined);
  assertEquals(backend.writeAt(pattern(10_000 - 9728, 1), 9728), undefined, "The odd tail");
  assertEquals(backend.readAt(new Uint8Array(512), 512), undefined);
  assertEquals(backend.zero!(0, 512), undefined);
  assertEquals(inner.calls, { read: 1, write: 2, flush: 0, zero: 1, discard: 0 });
  inner.close();
});

Deno.test("a write inside one block reads it once, one over two ends reads both", async () => {
  const inner = new BlockBackend({ size: 8192, blockSize: 512, seed: 1 });
  const backend = alignBackend(inner);
  for (
    const [offset, length, reads] of [
      [10, 20, 1],
      [10, 502, 1],
      [512, 20, 1],
      [512, 1000, 1],
      [500, 40, 2],
      [500, 4000, 2],
      [0, 512, 0],
    ] as const
  ) {
    const { read, write } = inner.calls;
    await backend.writeAt(pattern(length, 1), offset);
    assertEquals(inner.calls.read - read, reads, `${length} bytes at ${offset}`);
    assertEquals(inner.calls.write - write, 1);
  }
  inner.close();
});

Deno.test("discarding keeps the bytes of blocks that are not wholly inside", async () => {
  const inner = new BlockBackend({ size: 5000, blockSize: 512 });
  const backend = alignBackend(inner);
  await backend.writeAt(pattern(5000, 1), 0);
  const expected = pattern(5000, 1);
  await backend.discard!(100, 300);
  await backend.discard!(1000, 4000);
  expected.fill(0, 1024, 5000);
  assertBytes(await readBack(backend, 0, 5000), expected, "The region");
  inner.close();
});

Deno.test("zeroing that the backend refuses changes nothing", async () => {
  const inner = new BlockBackend({ size: 8192, blockSize: 512, zeroless: true });
  const backend = alignBackend(inner);
  await backend.writeAt(pattern(8192, 1), 0);
  await assertRejects(async () => await backend.zero!(100, 3000), UnsupportedError);
  assertBytes(await readBack(backend, 0, 8192), pattern(8192, 1), "The region");
  await backend.zero!(100, 200);
  const expected = pattern(8192, 1).fill(0, 100, 300);
  assertBytes(await readBack(backend, 0, 8192), expected, "The region");
  inner.close();
});

Deno.test("extents are those of the range that was asked for", async () => {
  const inner = new BlockBackend({ size: 4 * MIB, blockSize: 4096 });
  const backend = alignBackend(inner);
  await backend.writeAt(pattern(10, 1), MIB);
  const extents = await assertExtents(backend, 100, 2 * MIB + 33);
  assertEquals(extents.map(({ zero }) => zero), [true, false, true]);
  inner.close();
});

Deno.test("a failed write lets go of its blocks", async () => {
  const inner = new BlockBackend({ size: 4096, blockSize: 512, seed: 1 });
  const backend = alignBackend({
    ...facts(inner),
    readAt: (buffer, offset) => inner.readAt(buffer, offset),
    writeAt: (buffer, offset) => {
      if (buffer[3] === 0xbad % 256) throw new Error("Cannot write");
      return inner.writeAt(buffer, offset);
    },
  });
  await assertRejects(async () => await backend.writeAt(new Uint8Array([0xbad]), 3), Error);
  await backend.writeAt(new Uint8Array([1]), 3);
  assertBytes(await readBack(backend, 3, 1), new Uint8Array([1]), "The byte");
  assertThrows(() => backend.writeAt(new Uint8Array(1), 4096), RangeError);
  inner.close();
});

function facts(inner: BlockBackend) {
  return {
    size: inner.size,
    blockSize: inner.blockSize,
    durable: false,
    readOnly: false,
    flush: () => {},
    close: () => {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

const SIZE = 64;
const blockSizes = fc.constantFrom(4, 7, 16, 64, 100);
const seeds = fc.integer({ min: 1, max: 0x7fff_fffe });
const cuts = fc.uniqueArray(fc.nat(SIZE), { minLength: 2, maxLength: 24 })
  .map((at) => at.sort((a, b) => a - b));

Deno.test("operations side by side on neighbouring bytes do not undo each other", async () => {
  const property = fc.asyncProperty(
    blockSizes,
    seeds,
    cuts,
    fc.infiniteStream(fc.nat(5)),
    async (blockSize, seed, at, kinds) => {
      const inner = new BlockBackend({ size: SIZE, blockSize, seed });
      const backend = alignBackend(inner);
      await backend.writeAt(new Uint8Array(SIZE).fill(255), 0);
      const expected = new Uint8Array(SIZE).fill(255);
      await Promise.all(
        at.slice(1).map(async (end, index) => {
          const from = at[index]!, kind = kinds.next().value;
          if (kind === 0) {
            expected.fill(0, from, end);
            return await backend.zero!(from, end - from);
          }
          if (kind === 1) {
            const found = await readBack(backend, from, end - from);
            return assertBytes(found, expected.slice(from, end), `Bytes from ${from}`);
          }
          expected.fill(index + 1, from, end);
          await backend.writeAt(expected.slice(from, end), from);
        }),
      );
      assertBytes(await readBack(backend, 0, SIZE), expected, "The region");
      inner.close();
    },
  );
  await fc.assert(property, { numRuns: 500 });
});

/** A write over bytes that another one is writing: each byte ends as one of them left it. */
Deno.test("no write is lost where writes overlap", async () => {
  const range = fc.tuple(fc.nat(SIZE - 1), fc.integer({ min: 1, max: SIZE }))
    .map(([from, length]) => ({ from, end: Math.min(from + length, SIZE) }));
  const property = fc.asyncProperty(
    blockSizes,
    seeds,
    fc.array(range, { minLength: 1, maxLength: 20 }),
    async (blockSize, seed, ranges) => {
      const inner = new BlockBackend({ size: SIZE, blockSize, seed });
      const backend = alignBackend(inner);
      await Promise.all(ranges.map(async ({ from, end }, index) => {
        await backend.writeAt(new Uint8Array(end - from).fill(index + 1), from);
      }));
      const found = await readBack(backend, 0, SIZE);
      for (let at = 0; at < SIZE; at++) {
        const writers = ranges.flatMap(({ from, end }, index) =>
          from <= at && at < end ? [index + 1] : []
        );
        const legal = writers.length === 0 ? found[at] === 0 : writers.includes(found[at]!);
        assert(legal, `Byte ${at} is ${found[at]}, written by ${writers}`);
      }
      inner.close();
    },
  );
  await fc.assert(property, { numRuns: 500 });
});

Deno.test("a thousand writes into one block are all kept, in little time", async () => {
  const inner = new BlockBackend({ size: 4096, blockSize: 4096, seed: 1 });
  const backend: Backend = alignBackend(inner);
  const expected = pattern(1000, 1);
  await Promise.all(Array.from(expected, (_, index) => {
    return backend.writeAt(expected.subarray(index, index + 1), index);
  }));
  assertBytes(await readBack(backend, 0, 1000), expected, "The block");
  inner.close();
});
