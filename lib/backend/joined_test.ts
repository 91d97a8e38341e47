/** Backends laid end to end: the contract, and what lies between them. */
import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { openLibc } from "../../ffi/libc.ts";
import { assertRefused, testBackend } from "../../tests/backend_conformance.ts";
import { assertBytes, assertExtents, pattern, readBack } from "../../tests/backend_model.ts";
import { testReadOnlyBackend } from "../../tests/read_only_conformance.ts";
import { BlockBackend } from "../../tests/block_backend.ts";
import { alignBackend } from "../chunk/align.ts";
import { Stage } from "../chunk/stage.ts";
import type { Awaitable, Extent, ZeroOptions } from "./backend.ts";
import { IntegrityError, ReadOnlyError, UnsupportedError, UsageError } from "./errors.ts";
import { openFile } from "./file.ts";
import { openFixed } from "./fixed.ts";
import { joinBackends } from "./joined.ts";
import { layOut } from "./layout.ts";
import { openMemory } from "./memory.ts";

openLibc();

const MIB = 1 << 20;

testBackend("memories of any size, joined without gaps", {
  open: () => joinBackends([100, 5000, 3 * MIB + 77, 1].map((size) => openMemory({ size })), 1),
});
testBackend("2 TiB of memory, joined of three", {
  open: () =>
    joinBackends([64 << 10, 2 ** 40, 2 ** 40].map((size) => openMemory({ size })), 64 << 10),
});
testBackend("memory and slow blocks, joined", {
  open: () =>
    joinBackends([
      openMemory({ size: 65536 }),
      alignBackend(new BlockBackend({ size: 2 * MIB, blockSize: 512, seed: 1 })),
      openMemory({ size: MIB + 7 }),
    ], 65536),
});

let at = "";
const files = (
  readOnly: boolean,
  sizes: readonly (number | undefined)[] = [undefined, undefined],
) =>
  joinBackends(
    sizes.map((size, index) =>
      openFile({ path: `${at}/${index}`, readOnly, ...(size !== undefined && { size }) })
    ),
    4096,
  );
testBackend("files, joined", {
  open: () => {
    at = Deno.makeTempDirSync();
    return files(false, [64 << 10, 3 * MIB + 5]);
  },
  reopen: () => files(false),
  openReadOnly: () => files(true),
  remove: () => Deno.removeSync(at, { recursive: true }),
});

const FIXED = pattern(300_000, 7);
testReadOnlyBackend("fixed bytes", {
  open: () => openFixed(FIXED),
  fill: (buffer, offset) => buffer.set(FIXED.subarray(offset, offset + buffer.length)),
});

/** A joined region of memories, and what it is to hold. */
interface Plan {
  sizes: number[];
  alignment: number;
  changes: { at: number; length: number; seed: number; zero: boolean }[];
}

const plans: fc.Arbitrary<Plan> = fc.record({
  sizes: fc.array(fc.integer({ min: 1, max: 9000 }), { minLength: 1, maxLength: 6 }),
  alignment: fc.constantFrom(1, 7, 512, 4096),
  changes: fc.array(
    fc.record({
      at: fc.nat(30_000),
      length: fc.integer({ min: 1, max: 5000 }),
      seed: fc.nat(1000),
      zero: fc.boolean(),
    }),
    { maxLength: 20 },
  ),
});

Deno.test("a joined region is its parts and zeroes between, which are never written", async () => {
  await fc.assert(fc.asyncProperty(plans, async ({ sizes, alignment, changes }) => {
    const { offsets, size } = layOut(sizes, alignment);
    const isPart = new Uint8Array(size);
    for (const [index, offset] of offsets.entries()) {
      assertEquals(offset % alignment, 0);
      isPart.fill(1, offset, offset + sizes[index]!);
    }
    await using joined = joinBackends(sizes.map((size) => openMemory({ size })), alignment);
    assertEquals(joined.size, size);
    const model = new Uint8Array(size);
    for (const { at, length, seed, zero } of changes) {
      const offset = at % size, end = Math.min(offset + length, size);
      const bytes = pattern(end - offset, seed);
      if (zero) {
        await joined.zero!(offset, end - offset);
        model.fill(0, offset, end);
      } else if (isPart.subarray(offset, end).includes(0)) {
        await assertRefused(() => joined.writeAt(bytes, offset), ReadOnlyError);
      } else {
        await joined.writeAt(bytes, offset);
        model.set(bytes, offset);
      }
    }
    assertBytes(await readBack(joined, 0, size), model, "The region");
    await assertExtents(joined, 0, size);
  }));
});

/** A memory that counts its flushes, and fails them on request. */
class Counted extends Stage {
  flushes = 0;
  fails = false;
  refuses = false;

  constructor(size = 4096) {
    super(openMemory({ size }));
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    return this.backend.readAt(buffer, offset);
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    return this.backend.writeAt(buffer, offset);
  }

  override flush(): Awaitable<void> {
    this.flushes++;
    if (this.fails) throw new IntegrityError("of the test");
  }

  protected zeroRange(offset: number, length: number, options?: ZeroOptions): Awaitable<void> {
    if (this.refuses) throw new UnsupportedError("of the test");
    return this.backend.zero!(offset, length, options);
  }

  protected discardRange(offset: number, length: number): Awaitable<void> {
    return this.backend.discard!(offset, length);
  }

  protected findExtents(offset: number, length: number): Awaitable<Extent[]> {
    return this.backend.extents!(offset, length);
  }
}

Deno.test("a flush reaches the parts that were written, and again those where it failed", async () => {
  const parts = [new Counted(), new Counted(), new Counted()];
  await using joined = joinBackends(parts, 4096);
  const flushes = () => parts.map(({ flushes }) => flushes);
  await joined.flush();
  assertEquals(flushes(), [1, 1, 1], "what was written before they were joined");
  await joined.flush();
  assertEquals(flushes(), [1, 1, 1]);
  await joined.writeAt(new Uint8Array(10), 4096);
  await joined.flush();
  assertEquals(flushes(), [1, 2, 1]);
  await joined.zero!(4000, 200);
  parts[0]!.fails = true;
  await assertRefused(() => joined.flush(), IntegrityError);
  assertEquals(flushes(), [2, 3, 1]);
  parts[0]!.fails = false;
  await joined.flush();
  assertEquals(flushes(), [3, 3, 1]);
  await joined.writeAt(new Uint8Array(5000), 4096);
  await joined.discard!(0, 1);
  await joined.flush();
  assertEquals(flushes(), [4, 4, 2]);
});

Deno.test("a zero that a later part refuses is done there all the same, and changes nothing in the first", async () => {
  const parts = [new Counted(), new Counted()];
  await using joined = joinBackends(parts, 4096);
  await joined.writeAt(pattern(8192, 1), 0);
  parts[1]!.refuses = true;
  await joined.zero!(4000, 200);
  const expected = pattern(8192, 1).fill(0, 4000, 4200);
  assertBytes(await readBack(joined, 0, 8192), expected, "The region");
  parts[0]!.refuses = true;
  await assertRefused(() => joined.zero!(0, 8192), UnsupportedError);
  assertBytes(await readBack(joined, 0, 8192), expected, "The region after a refusal");
});

Deno.test("a part that may only be read refuses for itself, and before others are changed", async () => {
  await using joined = joinBackends([openMemory({ size: 100 }), openFixed(FIXED)], 1);
  assertEquals([joined.readOnly, joined.durable], [false, false]);
  await joined.writeAt(pattern(100, 2), 0);
  for (const call of ["writeAt", "zero", "discard"] as const) {
    await assertRefused(
      () => call === "writeAt" ? joined.writeAt(new Uint8Array(20), 90) : joined[call]!(90, 20),
      ReadOnlyError,
    );
  }
  assertBytes(await readBack(joined, 0, 100), pattern(100, 2), "The first part");
});

Deno.test("what cannot be joined is refused", () => {
  const blocks = new BlockBackend({ size: 4096, blockSize: 512, seed: 1 });
  assertThrows(() => joinBackends([blocks], 4096), UsageError, "blocks of 512 bytes");
  assertThrows(() => joinBackends([], 4096), UsageError, "no parts");
  for (const wrong of [0, -1, 0.5, NaN, 2 ** 53]) {
    assertThrows(() => layOut([1], wrong), UsageError, "an alignment");
    assertThrows(() => layOut([wrong], 1), UsageError, "a part");
  }
  assertThrows(() => layOut([2 ** 52, 2 ** 52], 1), UsageError, "together");
});
