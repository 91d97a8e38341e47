/** The stage that lets whole chunks through: the contract, and what it refuses. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { UsageError } from "../backend/errors.ts";
import { openMemory } from "../backend/memory.ts";
import { testBackend } from "../../tests/backend_conformance.ts";
import { assertBytes, pattern, readBack } from "../../tests/backend_model.ts";
import { BlockBackend } from "../../tests/block_backend.ts";
import { alignBackend } from "./align.ts";
import { guardBackend } from "./guard.ts";

openLibc();

const MIB = 1 << 20;

testBackend("memory behind a guard of 4 KiB", {
  open: () => guardBackend(openMemory({ size: 5 * MIB }), { chunkSize: 4096, maxLength: 8 * MIB }),
});
testBackend("slow blocks behind a guard of 64 KiB", {
  open: () =>
    guardBackend(new BlockBackend({ size: 4 * MIB, blockSize: 512, seed: 1 }), {
      chunkSize: 65536,
      maxLength: 8 * MIB,
    }),
});
testBackend("any range of a guarded region with an odd tail", {
  open: () =>
    alignBackend(
      guardBackend(openMemory({ size: 3 * MIB + 77 }), { chunkSize: 4096, maxLength: Infinity }),
    ),
});

Deno.test("what is not aligned is refused, and nothing happens", async () => {
  const inner = openMemory({ size: 10_000 });
  await using guard = guardBackend(inner, { chunkSize: 4096, maxLength: 8192 });
  assertEquals(guard.blockSize, 4096);
  for (const [offset, length] of [[1, 4096], [0, 4095], [4096, 1], [8192, 1807], [512, 512]]) {
    const error = assertThrows(() => guard.writeAt(pattern(length!, 1), offset!), UsageError);
    assertStringIncludes(error.message, "whole chunks of 4KiB");
    assertThrows(() => guard.readAt(new Uint8Array(length!), offset!), UsageError);
    assertThrows(() => guard.zero!(offset!, length!), UsageError);
    assertThrows(() => guard.discard!(offset!, length!), UsageError);
    assertThrows(() => guard.extents!(offset!, length!), UsageError);
  }
  assertBytes(await readBack(inner, 0, 10_000), new Uint8Array(10_000), "The region");
});

Deno.test("the last chunk ends with the region", async () => {
  await using guard = guardBackend(openMemory({ size: 10_000 }), { chunkSize: 4096 });
  await guard.writeAt(pattern(1808, 1), 8192);
  assertBytes(await readBack(guard, 8192, 1808), pattern(1808, 1), "The tail");
});

Deno.test("reads and writes are limited, to a chunk unless told, and others are not", async () => {
  const inner = openMemory({ size: 65536 });
  const guard = guardBackend(inner, { chunkSize: 4096 });
  await guard.writeAt(pattern(4096, 1), 4096);
  const error = assertThrows(() => guard.writeAt(pattern(8192, 1), 0), UsageError);
  assertStringIncludes(error.message, "at most 4KiB");
  assertThrows(() => guard.readAt(new Uint8Array(8192), 0), UsageError);
  assertBytes(await readBack(inner, 0, 4096), new Uint8Array(4096), "The first chunk");
  await guard.zero!(0, 65536);
  await guard.discard!(0, 65536);
  assertEquals((await guard.extents!(0, 65536)).length, 1);
  const wide = guardBackend(inner, { chunkSize: 4096, maxLength: 10_000 });
  await wide.writeAt(pattern(8192, 1), 0);
  assertThrows(() => wide.writeAt(pattern(12288, 1), 0), UsageError);
  await guard.close();
});

Deno.test("the bytes of a guarded region cannot be reached around the guard", async () => {
  await using guard = guardBackend(openMemory({ size: 4096 }), { chunkSize: 4096 });
  assertEquals([guard.memory, guard.share], [undefined, undefined]);
});

Deno.test("a guard that nothing could pass is refused", () => {
  const inner = new BlockBackend({ size: 8192, blockSize: 512 });
  for (const chunkSize of [0, -512, 100, 513, 512.5, NaN, Infinity]) {
    assertThrows(() => guardBackend(inner, { chunkSize }), UsageError, "512");
  }
  for (const maxLength of [0, 511, NaN]) {
    assertThrows(() => guardBackend(inner, { chunkSize: 512, maxLength }), UsageError);
  }
  inner.close();
});
