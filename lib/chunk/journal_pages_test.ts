import { assertEquals, assertThrows } from "@std/assert";
import { crc32 } from "node:zlib";
import { IntegrityError, UsageError } from "../backend/errors.ts";
import {
  checkKind,
  decodeHeader,
  encodeHeader,
  findSlot,
  type JournalHeader,
  layoutOf,
  PAGE,
  partChunksOf,
  PARTIAL_SLOT,
  recordedVersion,
  sealSlot,
  SLOT_HEAD,
  slotOffset,
} from "./journal_pages.ts";

const TIB = 2 ** 40;
const HEADER: JournalHeader = {
  size: TIB + 1,
  chunkSize: 65536,
  partChunks: 4097,
  remote: Uint8Array.from({ length: 16 }, (_, index) => index),
  remoteVersion: '"läng-1"',
  cache: Uint8Array.from({ length: 16 }, (_, index) => 255 - index),
};

/** The slots of page 3, sealed with these generations and filled with 1 and 2; 0 leaves one blank. */
function pair(...generations: readonly [number, number]): Uint8Array<ArrayBuffer> {
  const slots = new Uint8Array(2 * PAGE);
  for (const [index, generation] of generations.entries()) {
    if (generation === 0) continue;
    const slot = slots.subarray(index * PAGE, (index + 1) * PAGE);
    slot.fill(index + 1, SLOT_HEAD);
    sealSlot(slot, { page: 3, generation });
  }
  return slots;
}

Deno.test("encodeHeader() fills one sector that decodeHeader() reads", () => {
  const page = encodeHeader(HEADER);
  assertEquals(page.length, PAGE);
  assertEquals(page.subarray(512).some((byte) => byte !== 0), false);
  assertEquals(decodeHeader(page, "it"), { ...HEADER, hasPartial: true });
  const longest = { ...HEADER, remoteVersion: "v".repeat(256) };
  assertEquals(decodeHeader(encodeHeader(longest), "it"), { ...longest, hasPartial: true });
});

Deno.test("recordedVersion() puts a hash for what is too long to be recorded", () => {
  assertEquals(recordedVersion("v".repeat(256)), "v".repeat(256));
  const [one, other] = [recordedVersion("é".repeat(129)), recordedVersion("v".repeat(257))];
  assertEquals([one.length, other.length, one === other], [71, 71, false]);
  assertThrows(() => encodeHeader({ ...HEADER, remoteVersion: "v".repeat(257) }), RangeError);
});

Deno.test("decodeHeader() takes a blank page for a journal that was never finished", () => {
  assertEquals(decodeHeader(new Uint8Array(PAGE), "it"), undefined);
  checkKind(new Uint8Array(PAGE), "it");
});

Deno.test("decodeHeader() refuses any header with a changed bit", () => {
  const page = encodeHeader(HEADER);
  for (let bit = 0; bit < 512 * 8; bit++) {
    const damaged = page.slice();
    damaged[bit >>> 3]! ^= 1 << (bit & 7);
    const kind = bit < 64 ? UsageError : IntegrityError;
    assertThrows(() => decodeHeader(damaged, "it"), kind, "it", `Bit ${bit}`);
  }
});

Deno.test("decodeHeader() tells an unknown version from damage", () => {
  const page = encodeHeader(HEADER);
  setVersion(page, 3);
  page[16]! ^= 1;
  assertThrows(() => decodeHeader(page, "it"), IntegrityError, "damaged");
  page[16]! ^= 1;
  assertThrows(() => decodeHeader(page, "it"), UsageError, "version 3");
});

Deno.test("decodeHeader() reads the version that had no lists of partial chunks", () => {
  const page = encodeHeader(HEADER);
  setVersion(page, 1);
  assertEquals(decodeHeader(page, "it"), { ...HEADER, hasPartial: false });
});

function setVersion(page: Uint8Array<ArrayBuffer>, version: number): void {
  const view = new DataView(page.buffer);
  view.setUint32(8, version, true);
  view.setUint32(12, 0, true);
  view.setUint32(12, crc32(page.subarray(0, 512)), true);
}

Deno.test("findSlot() takes the higher generation of those that are whole", () => {
  for (
    const [generations, slot] of [
      [[1, 0], 0],
      [[0, 1], 1],
      [[1, 2], 1],
      [[2 ** 32, 2 ** 32 - 1], 0],
      [[2 ** 40 + 1, 2 ** 40 + 2], 1],
    ] as [[number, number], 0 | 1][]
  ) {
    const found = findSlot(pair(...generations), 3, "it");
    assertEquals([found.slot, found.generation], [slot, generations[slot]]);
    assertEquals(found.content.length, PAGE - SLOT_HEAD);
    assertEquals(found.content.every((byte) => byte === slot + 1), true);
  }
});

Deno.test("findSlot() falls back to the older slot where the newer one is torn at any sector", () => {
  for (let sector = 0; sector < 8; sector++) {
    const slots = pair(7, 8);
    slots.fill(9, PAGE + sector * 512, PAGE + sector * 512 + 512);
    assertEquals(findSlot(slots, 3, "it").generation, 7);
  }
});

Deno.test("findSlot() refuses two damaged slots, and those of another page", () => {
  const slots = pair(7, 8);
  slots[100]! ^= 1;
  slots[PAGE + 4000]! ^= 1;
  const error = assertThrows(() => findSlot(slots, 3, "it"), IntegrityError, "page 3");
  assertEquals(error.message.includes("--discard-cache"), true);
  assertThrows(() => findSlot(pair(7, 8), 2, "it"), IntegrityError, "page 2");
  assertThrows(() => findSlot(pair(0, 0), 3, "it"), IntegrityError, "page 3");
});

Deno.test("findSlot() tells whether the cache was closed in order", () => {
  for (const closed of [false, true]) {
    const slots = new Uint8Array(2 * PAGE);
    sealSlot(slots.subarray(0, PAGE), { page: 0, generation: 1, closed });
    assertEquals(findSlot(slots, 0, "it").closed, closed);
  }
});

Deno.test("layoutOf() needs under 16 MiB for 1 TiB of 64 KiB chunks", () => {
  const partChunks = partChunksOf(TIB, 65536);
  const layout = layoutOf({ ...HEADER, size: TIB, partChunks });
  assertEquals(layout, {
    chunks: 2 ** 24,
    parts: 4096,
    pages: 1033,
    partialAt: slotOffset(1034, 0),
    fileSize: slotOffset(1034, 0) + 2 * PARTIAL_SLOT,
  });
  assertEquals(layout.fileSize < 9 << 20, true);
});

Deno.test("partChunksOf() covers 64 MiB at least, and makes 4096 parts at most", () => {
  assertEquals(partChunksOf(4096, 65536), 1024);
  assertEquals(partChunksOf(2 ** 36, 65536), 1024);
  assertEquals(partChunksOf(2 ** 30, 32 << 20), 2);
  for (const size of [1, TIB, TIB + 1, 3 * TIB - 1, 2 ** 50]) {
    for (const chunkSize of [4096, 65536, 3 << 20, 32 << 20]) {
      const chunks = Math.ceil(size / chunkSize);
      assertEquals(Math.ceil(chunks / partChunksOf(size, chunkSize)) <= 4096, true);
    }
  }
});

Deno.test("layoutOf() refuses sizes that no cache can have", () => {
  for (const chunkSize of [0, -1, 1.5, 2 ** 32, NaN]) {
    assertThrows(() => layoutOf({ ...HEADER, chunkSize }), UsageError);
  }
  assertThrows(() => layoutOf({ ...HEADER, size: 0 }), UsageError);
  assertThrows(() => layoutOf({ ...HEADER, partChunks: 0 }), UsageError);
  assertThrows(
    () => layoutOf({ ...HEADER, size: 2 ** 41, chunkSize: 4096 }),
    UsageError,
    "choose the chunks",
  );
});
