/** The list of partial chunks: any one is read as it was written, and a torn slot is seen. */
import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { IntegrityError } from "../backend/errors.ts";
import { RangeList } from "../backend/range_list.ts";
import { PARTIAL_SLOT } from "./journal_pages.ts";
import {
  decodePartial,
  encodePartial,
  findPartial,
  LIST_MOST,
  type PartialBounds,
  type PartialRanges,
  sealPartial,
} from "./partial_list.ts";

/** Chunks of several sizes, in regions of up to the most that there may be. */
const bounds = fc.record({
  chunkSize: fc.constantFrom(4096, 65536, 32 << 20),
  chunks: fc.constantFrom(1, 5, 1000, 2 ** 28),
  tail: fc.integer({ min: 1, max: 4096 }),
}).map(({ chunkSize, chunks, tail }) => ({ chunkSize, size: (chunks - 1) * chunkSize + tail }));

/** Ranges in some chunks, as fractions of the region and of a chunk. */
const shares = fc.array(
  fc.tuple(
    fc.double({ min: 0, max: 1, noNaN: true }),
    fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(9000)), {
      minLength: 1,
      maxLength: 6,
    }),
  ),
  { maxLength: 12 },
);

type Share = typeof shares extends fc.Arbitrary<infer T> ? T : never;

function rangesOf(list: Share, { size, chunkSize }: PartialBounds): Map<number, RangeList> {
  const ranges = new Map<number, RangeList>();
  const chunks = Math.ceil(size / chunkSize);
  for (const [share, parts] of list) {
    const chunk = Math.min(Math.floor(share * chunks), chunks - 1);
    const from = chunk * chunkSize, to = Math.min(from + chunkSize, size);
    const found = ranges.get(chunk) ?? new RangeList();
    for (const [at, length] of parts) {
      const start = Math.min(from + Math.floor(at * (to - from)), to - 1);
      found.add(start, Math.min(start + length + 1, to));
    }
    ranges.set(chunk, found);
  }
  return ranges;
}

function plain(ranges: PartialRanges): [number, number[]][] {
  return [...ranges].map(([chunk, list]): [number, number[]] => [chunk, [...list.bounds()]])
    .sort(([a], [b]) => a - b);
}

Deno.test("any list is read as it was written, whatever the sizes", () => {
  fc.assert(fc.property(bounds, shares, (region, list) => {
    const ranges = rangesOf(list, region);
    const found = decodePartial(encodePartial(ranges, region.chunkSize)!, region, "it");
    assertEquals(plain(found), plain(ranges));
  }));
});

Deno.test("a list is no longer when chunks are taken out of it", () => {
  fc.assert(fc.property(bounds, shares, fc.nat(), (region, list, which) => {
    const ranges = rangesOf(list, region);
    const length = encodePartial(ranges, region.chunkSize)!.length;
    ranges.delete([...ranges.keys()][which % Math.max(ranges.size, 1)] ?? 0);
    const after = encodePartial(ranges, region.chunkSize)!.length;
    assertEquals(after <= length, true, `${after} of ${length}`);
  }));
});

Deno.test("any bytes are a list of that region or refused as damaged", () => {
  fc.assert(fc.property(bounds, fc.uint8Array({ maxLength: 40 }), (region, bytes) => {
    let found: PartialRanges;
    try {
      found = decodePartial(bytes, region, "it");
    } catch (error) {
      if (!(error instanceof IntegrityError)) throw error;
      return;
    }
    for (const [chunk, list] of found) {
      const from = chunk * region.chunkSize;
      assertEquals(list.start(0) >= from, true);
      assertEquals(
        list.end(list.count - 1) <= Math.min(from + region.chunkSize, region.size),
        true,
      );
    }
  }));
});

Deno.test("a list that is too long for a slot is told", () => {
  const ranges = new Map<number, RangeList>();
  let count = 0;
  // A step of one chunk, a count of one, and two numbers of two bytes.
  for (; (count + 1) * 6 <= LIST_MOST; count++) {
    const list = new RangeList();
    list.add(count * 4096 + 200, count * 4096 + 400);
    ranges.set(count, list);
  }
  const size = (count + 1) * 4096;
  const list = encodePartial(ranges, 4096)!;
  assertEquals(plain(decodePartial(list, { size, chunkSize: 4096 }, "it")), plain(ranges));
  assertEquals(sealPartial(list, 1).length, PARTIAL_SLOT);
  const last = new RangeList();
  last.add(count * 4096, size);
  ranges.set(count, last);
  assertEquals(encodePartial(ranges, 4096), undefined);
});

/** Two slots with lists of that many bytes; 0 generations leave one blank. */
function pair(...slots: readonly [generation: number, length: number][]): Uint8Array {
  const bytes = new Uint8Array(2 * PARTIAL_SLOT);
  for (const [index, [generation, length]] of slots.entries()) {
    if (generation === 0) continue;
    const list = new Uint8Array(length).fill(index + 1);
    bytes.set(sealPartial(list, generation), index * PARTIAL_SLOT);
  }
  return bytes;
}

Deno.test("findPartial() takes the higher generation of those that are whole", () => {
  for (
    const [first, second, slot] of [
      [[1, 0], [0, 0], 0],
      [[0, 0], [1, 70_000], 1],
      [[1, 5], [2, 7], 1],
      [[2 ** 32, 9000], [2 ** 32 - 1, 3], 0],
    ] as [[number, number], [number, number], number][]
  ) {
    const found = findPartial(pair(first, second), "it");
    const [generation, length] = slot === 0 ? first : second;
    assertEquals([found.slot, found.generation, found.otherTorn], [slot, generation, false]);
    assertEquals(found.list, new Uint8Array(length).fill(slot + 1));
  }
});

Deno.test("findPartial() falls back to the older list where the newer is torn at any sector", () => {
  const length = 5000;
  for (let sector = 0; sector * 512 < length; sector++) {
    const slots = pair([7, 3000], [8, length]);
    slots.fill(9, PARTIAL_SLOT + sector * 512, PARTIAL_SLOT + sector * 512 + 512);
    const found = findPartial(slots, "it");
    assertEquals([found.slot, found.generation, found.otherTorn], [0, 7, true], `${sector}`);
  }
  // What a longer list left behind a shorter one is no part of it.
  const slots = pair([7, 3000], [8, length]);
  slots.fill(9, PARTIAL_SLOT + 5120);
  assertEquals(findPartial(slots, "it").generation, 8);
});

Deno.test("findPartial() refuses two damaged slots", () => {
  assertThrows(() => findPartial(pair([0, 0], [0, 0]), "it"), IntegrityError, "partial chunks");
  const slots = pair([1, 5], [2, 5]);
  slots[33]! ^= 1;
  slots[PARTIAL_SLOT + 33]! ^= 1;
  assertThrows(() => findPartial(slots, "it"), IntegrityError, "--discard-cache");
  // A length beyond the slot.
  const long = pair([1, 5], [2, 5]);
  long.fill(0xff, PARTIAL_SLOT + 4, PARTIAL_SLOT + 8);
  assertEquals(findPartial(long, "it").generation, 1);
});
