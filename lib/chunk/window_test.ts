/** The stage that shows a part of a region: the contract, and what lies outside. */
import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { openLibc } from "../../ffi/libc.ts";
import { assertRefused, testBackend } from "../../tests/backend_conformance.ts";
import { assertBytes, pattern, readBack } from "../../tests/backend_model.ts";
import { BlockBackend } from "../../tests/block_backend.ts";
import { UsageError } from "../backend/errors.ts";
import { joinBackends } from "../backend/joined.ts";
import { openMemory } from "../backend/memory.ts";
import { windowOf } from "./window.ts";

openLibc();

const MIB = 1 << 20;

testBackend("a window of memory", {
  open: () => windowOf(openMemory({ size: 8 * MIB }), { offset: 12_345, size: 5 * MIB + 77 }),
});
testBackend("a window of 1 TiB", {
  open: () => windowOf(openMemory({ size: 2 ** 41 }), { offset: 2 ** 40 + 1, size: 2 ** 40 - 1 }),
});
testBackend("a window of slow blocks", {
  open: () =>
    windowOf(new BlockBackend({ size: 5 * MIB, blockSize: 512, seed: 1 }), {
      ...{ offset: 1024, size: 4 * MIB },
    }),
});
testBackend("the part of a joined region between gaps", {
  open: () =>
    windowOf(joinBackends([100, 3 * MIB + 5, 100].map((size) => openMemory({ size })), 65536), {
      ...{ offset: 65536, size: 3 * MIB + 5 },
    }),
});

Deno.test("a window changes what it shows, and nothing beside it", async () => {
  const range = fc.tuple(fc.nat(9_999), fc.integer({ min: 1, max: 10_000 }), fc.nat(9_999));
  await fc.assert(fc.asyncProperty(range, fc.nat(10_000), async ([offset, most, at], length) => {
    const size = Math.min(most, 10_000 - offset);
    const inner = openMemory({ size: 10_000 });
    const model = pattern(10_000, 1);
    inner.writeAt(model, 0);
    await using shown = windowOf(inner, { offset, size });
    assertBytes(await readBack(shown, 0, size), model.subarray(offset, offset + size), "It");
    const from = at % size, bytes = pattern(length, 2);
    if (length > size - from) {
      await assertRefused(() => shown.writeAt(bytes, from), RangeError);
      await assertRefused(() => shown.zero!(from, length), RangeError);
      await assertRefused(() => shown.discard!(from, length), RangeError);
    } else {
      await shown.writeAt(bytes, from);
      model.set(bytes, offset + from);
    }
    assertBytes(await readBack(inner, 0, 10_000), model, "The whole");
  }));
});

Deno.test("a window that is empty, outside or not whole blocks is refused", () => {
  const blocks = new BlockBackend({ size: 8192, blockSize: 512, seed: 1 });
  const wrong = [[0, 0], [-512, 512], [8192, 512], [512, 8192], [1, 512], [0, 511], [NaN, 512]];
  for (const [offset, size] of wrong) {
    assertThrows(() => windowOf(blocks, { offset: offset!, size: size! }), UsageError, "inside");
  }
  assertEquals(windowOf(blocks, { offset: 512, size: 7680 }).size, 7680);
});
