import { assert, assertEquals, assertThrows } from "@std/assert";
import { SystemError } from "../../ffi/errno.ts";
import { openLibc } from "../../ffi/libc.ts";
import { ClosedError, ReadOnlyError, UsageError } from "./errors.ts";
import { openMemory, openSharedMemory } from "./memory.ts";

openLibc();

const BLOCK = 65536;
const MIB = 1 << 20;

Deno.test("every method answers at once", async () => {
  await using memory = openMemory({ size: MIB });
  const bytes = new Uint8Array(4096).fill(1);
  assertEquals(memory.writeAt(bytes, 1), undefined);
  assertEquals(memory.readAt(bytes, 0), undefined);
  assertEquals(memory.zero(0, MIB), undefined);
  assertEquals(memory.discard(0, MIB), undefined);
  assertEquals(memory.flush(), undefined);
  assertEquals(memory.durable, false);
});

Deno.test("what is placed is written, and only inside a region that can be", async () => {
  await using memory = openMemory({ size: 4 * BLOCK });
  memory.placeAt(BLOCK, 2).set([1, 2]);
  const bytes = new Uint8Array(4);
  memory.readAt(bytes, BLOCK - 1);
  assertEquals(bytes, Uint8Array.of(0, 1, 2, 0));
  assertEquals(memory.extents(0, 4 * BLOCK)[1], {
    ...{ offset: BLOCK, length: BLOCK, hole: false, zero: false },
  });
  assertThrows(() => memory.placeAt(4 * BLOCK - 1, 2), RangeError);
  await using readOnly = openSharedMemory({ ...memory.share(), readOnly: true });
  assertThrows(() => readOnly.placeAt(0, 1), ReadOnlyError);
});

Deno.test("extents tell what was written from what never was, and from what was zeroed", async () => {
  await using memory = openMemory({ size: 8 * BLOCK + 100 });
  const hole = { hole: true, zero: true };
  const data = { hole: false, zero: false };
  assertEquals(memory.extents(5, 10), [{ offset: 5, length: 10, ...hole }]);
  memory.writeAt(new Uint8Array(2), 3 * BLOCK - 1);
  memory.writeAt(new Uint8Array(1), 8 * BLOCK + 99);
  const written = [
    { offset: 1, length: 2 * BLOCK - 1, ...hole },
    { offset: 2 * BLOCK, length: 2 * BLOCK, ...data },
    { offset: 4 * BLOCK, length: 4 * BLOCK, ...hole },
    { offset: 8 * BLOCK, length: 100, ...data },
  ];
  assertEquals(memory.extents(1, memory.size - 1), written);
  memory.zero(2 * BLOCK + 1, 6 * BLOCK + 99);
  assertEquals(memory.extents(0, memory.size), [
    { offset: 0, length: 2 * BLOCK, ...hole },
    { offset: 2 * BLOCK, length: BLOCK, ...data },
    { offset: 3 * BLOCK, length: 5 * BLOCK + 100, ...hole },
  ]);
  memory.zero(4 * BLOCK, BLOCK, { allocate: true });
  assertEquals(memory.extents(4 * BLOCK, BLOCK), [{ offset: 4 * BLOCK, length: BLOCK, ...data }]);
});

Deno.test("zeroed memory is given back to the system", async () => {
  await using memory = openMemory({ size: 64 * MIB });
  const bytes = new Uint8Array(MIB).fill(1);
  for (let offset = 0; offset < memory.size; offset += MIB) memory.writeAt(bytes, offset);
  const before = Deno.memoryUsage().rss;
  memory.zero(100, memory.size - 200);
  const given = before - Deno.memoryUsage().rss;
  assert(given > 48 * MIB, `${given} bytes were given back`);
});

Deno.test("a 1 TiB region takes up only what is written", async () => {
  const before = Deno.memoryUsage().rss;
  await using memory = openMemory({ size: 2 ** 40 });
  memory.writeAt(new Uint8Array(1), 2 ** 40 - 1);
  assertEquals(memory.extents(0, 2 ** 40).length, 2);
  const taken = Deno.memoryUsage().rss - before;
  assert(taken < 32 * MIB, `${taken} bytes were taken up`);
});

Deno.test("closing empties views, here only of what was opened here", () => {
  const memory = openMemory({ size: MIB });
  const shared = openSharedMemory(memory.share());
  memory.writeAt(new Uint8Array([1, 2, 3]), 10);
  const view = shared.memory.bytes.subarray(10, 13);
  assertEquals([...view], [1, 2, 3]);
  shared.close();
  assertEquals([view.length, shared.memory.bytes.length], [0, 0]);
  assertThrows(() => shared.share(), ClosedError);
  assertEquals([...memory.memory.bytes.subarray(10, 13)], [1, 2, 3]);
  const own = memory.memory.bytes.subarray(10, 13);
  memory.close();
  assertEquals([own.length, memory.memory.bytes.length], [0, 0]);
});

Deno.test("a region that is shared for reading cannot be written there", async () => {
  await using memory = openMemory({ size: MIB });
  await using shared = openSharedMemory({ ...memory.share(), readOnly: true });
  assertThrows(() => shared.writeAt(new Uint8Array(1), 0), ReadOnlyError);
  assertThrows(() => shared.zero(0, 1), ReadOnlyError);
});

Deno.test("sizes that are none and sizes that do not fit are refused", () => {
  for (const size of [0, -1, 0.5, NaN, 2 ** 53]) {
    assertThrows(() => openMemory({ size }), UsageError, "over 0");
  }
  const error = assertThrows(() => openMemory({ size: 2 ** 50 }), SystemError);
  assertEquals([error.syscall, error.code], ["mmap", "ENOMEM"]);
});

Deno.test("two Workers that write side by side lose no note of what was written", async () => {
  const count = 4096;
  await using memory = openMemory({ size: count * BLOCK });
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const source = `
    import { openSharedMemory } from ${JSON.stringify(import.meta.resolve("./memory.ts"))};
    addEventListener("message", async ({ data: { shared, gate } }) => {
      await using memory = openSharedMemory(shared);
      const byte = new Uint8Array([1]);
      memory.writeAt(byte, 1);
      Atomics.store(gate, 0, 1);
      while (Atomics.load(gate, 0) < 2);
      for (let block = 1; block < ${count}; block += 2) memory.writeAt(byte, block * ${BLOCK});
      postMessage("done");
    });`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  const done = new Promise((resolve, reject) => {
    worker.onmessage = resolve;
    worker.onerror = reject;
  });
  try {
    worker.postMessage({ shared: memory.share(), gate });
    while (Atomics.load(gate, 0) < 1) await new Promise((resolve) => setTimeout(resolve));
    const byte = new Uint8Array([2]);
    Atomics.store(gate, 0, 2);
    for (let block = 0; block < count; block += 2) memory.writeAt(byte, block * BLOCK);
    await done;
  } finally {
    worker.terminate();
    URL.revokeObjectURL(url);
  }
  const whole = { offset: 0, length: memory.size, hole: false, zero: false };
  assertEquals(memory.extents(0, memory.size), [whole]);
  assertEquals([...memory.memory.bytes.subarray(0, 2)], [2, 1]);
});
