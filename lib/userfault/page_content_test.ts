import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { MemoryView } from "../../ffi/mman.ts";
import { openLibc } from "../../ffi/libc.ts";
import type { Backend } from "../backend/backend.ts";
import { openMemory } from "../backend/memory.ts";
import { SlotPool } from "../net/slot_pool.ts";
import { areZero, type PageContent, PageReader } from "./page_content.ts";
import { PagedRegion } from "./paged_region.ts";

openLibc();

const PAGE = 4096;

Deno.test("areZero looks at every word of its range, and at no other", () => {
  fc.assert(fc.property(
    fc.nat(20),
    fc.integer({ min: 1, max: 40 }),
    fc.option(fc.nat(79)),
    fc.nat(31),
    (at, count, spot, bit) => {
      const words = new Uint32Array(80);
      if (spot !== null) words[spot] = 2 ** bit;
      const inside = spot !== null && spot >= at && spot < at + count;
      assertEquals(areZero(words, at, count), !inside);
    },
  ));
});

/** Bytes none of which is its neighbour's, and none of which is 0. */
function content(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => 1 + (index * 7 + (index >> 8)) % 255);
}

function regionOf(pages: number, offset = 0): PagedRegion {
  const layout = { address: PAGE, size: pages * PAGE, offset, pageSize: PAGE };
  return new PagedRegion(layout, PAGE, PAGE);
}

/** The bytes that C finds, and those of the words, which are the same. */
function bytesOf(content: PageContent, length: number): Uint8Array {
  const { buffer, byteOffset } = content.words;
  const words = new Uint8Array(buffer, byteOffset + content.word * 4, length);
  using memory = new MemoryView(content.address, length);
  assertEquals(memory.bytes, words as Uint8Array<ArrayBuffer>);
  return words.slice();
}

async function backendOf(length: number): Promise<Backend & { memory: unknown }> {
  const backend = openMemory({ size: length });
  await backend.writeAt(content(length), 0);
  return backend;
}

/** The same, as one that cannot lend its memory, and answers later where that is asked for. */
function withoutMemory(backend: Backend, later = false): Backend {
  const { size, blockSize, durable, readOnly } = backend;
  return {
    ...{ size, blockSize, durable, readOnly },
    readAt: (buffer, offset) => {
      if (!later) return backend.readAt(buffer, offset);
      return Promise.resolve().then(() => backend.readAt(buffer, offset));
    },
    writeAt: (buffer, offset) => backend.writeAt(buffer, offset),
    flush: () => backend.flush(),
    close: () => {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

const OFFSETS = [0, PAGE, PAGE + 4, PAGE + 1];

for (const manner of ["lent memory", "a copy at once", "a copy later"]) {
  Deno.test(`pages are read as ${manner}, with zeroes behind the end`, async () => {
    const length = 3 * PAGE + 1001;
    await using memory = await backendOf(length);
    using pool = new SlotPool();
    const backend = manner === "lent memory"
      ? memory
      : withoutMemory(memory, manner === "a copy later");
    const reader = new PageReader(backend, pool);
    // Of a buffer that held something else before, nothing may be seen.
    const used = pool.acquire(2 * PAGE);
    used.bytes.fill(0xee);
    pool.release(used);
    const all = content(length);
    for (const offset of OFFSETS) {
      const region = regionOf(5, offset);
      for (let page = 0; page < 4; page++) {
        const found = await reader.read(region, page, page + 2);
        const expected = new Uint8Array(2 * PAGE);
        const start = offset + page * PAGE;
        expected.set(all.subarray(start, start + 2 * PAGE));
        assertEquals(bytesOf(found, 2 * PAGE), expected, `page ${page} from ${offset}`);
        reader.release(found);
      }
    }
    assertEquals(pool.lent, 0);
  });
}

Deno.test("memory that is lent is not copied, and needs no buffer", async () => {
  await using memory = await backendOf(4 * PAGE);
  using pool = new SlotPool();
  const found = new PageReader(memory, pool).read(regionOf(3, PAGE), 1, 3) as PageContent;
  const { address } = (memory as ReturnType<typeof openMemory>).memory;
  assertEquals([found.address, found.slot, pool.lent], [address + 2 * PAGE, undefined, 0]);
});

Deno.test("a read that fails gives its buffer back, thrown or rejected", async () => {
  using pool = new SlotPool();
  const backend = withoutMemory(openMemory({ size: PAGE }));
  const gone = new Error("the disk is gone");
  backend.readAt = () => {
    throw gone;
  };
  const reader = new PageReader(backend, pool);
  assert(assertThrows(() => reader.read(regionOf(1), 0, 1)) === gone);
  backend.readAt = () => Promise.reject(gone);
  assert(await assertRejects(async () => await reader.read(regionOf(1), 0, 1)) === gone);
  assertEquals(pool.lent, 0);
});
