import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { crc32 } from "node:zlib";
import { IntegrityError, UsageError } from "../backend/errors.ts";
import { layOut } from "../backend/layout.ts";
import {
  decodeGroupHead,
  encodeGroupHead,
  GROUP_HEAD_BYTES,
  GROUP_NAME_MOST,
  GROUP_PARTS_MOST,
  type NamedSize,
} from "./group_head.ts";

const names = fc.string({ unit: "grapheme", minLength: 1, maxLength: 60 }).filter((name) =>
  new TextEncoder().encode(name).length <= GROUP_NAME_MOST
);
const groups = fc.record({
  parts: fc.uniqueArray(
    fc.record({ name: names, size: fc.integer({ min: 1, max: 2 ** 46 }) }, {
      noNullPrototype: true,
    }),
    { minLength: 1, maxLength: GROUP_PARTS_MOST, selector: ({ name }) => name },
  ),
  alignment: fc.constantFrom(4096, 65536, 32 << 20),
});

function sizeOf(parts: readonly NamedSize[], alignment: number): number {
  return layOut([GROUP_HEAD_BYTES, ...parts.map(({ size }) => size)], alignment).size;
}

Deno.test("a table is what it was made of, and tells where the parts lie", () => {
  fc.assert(fc.property(groups, ({ parts, alignment }) => {
    const head = encodeGroupHead(parts, alignment);
    assertEquals(head.length, GROUP_HEAD_BYTES);
    const found = decodeGroupHead(head, sizeOf(parts, alignment));
    assertEquals(found.map(({ name, size }) => ({ name, size })), parts);
    let end = GROUP_HEAD_BYTES;
    for (const { offset, size } of found) {
      assertEquals(offset, Math.ceil(end / alignment) * alignment);
      end = offset + size;
    }
  }));
});

Deno.test("the most that fits in a table does", () => {
  const parts = Array.from({ length: GROUP_PARTS_MOST }, (_, index) => ({
    name: `${index}`.padStart(GROUP_NAME_MOST, "x"),
    size: 2 ** 40 + index,
  }));
  const found = decodeGroupHead(encodeGroupHead(parts, 4096), sizeOf(parts, 4096));
  assertEquals(found.map(({ name, size }) => ({ name, size })), parts);
});

const PARTS = [{ name: "memory", size: 1 << 20 }, { name: "disk", size: 12345 }];
const SIZE = sizeOf(PARTS, 4096);

Deno.test("a table of which any byte is another one is refused", () => {
  const head = encodeGroupHead(PARTS, 4096);
  const change = fc.tuple(
    fc.oneof(fc.nat(60), fc.nat(GROUP_HEAD_BYTES - 1)),
    fc.integer({ min: 1, max: 255 }),
  );
  fc.assert(fc.property(change, ([at, flip]) => {
    const changed = head.slice();
    changed[at]! ^= flip;
    assertThrows(() => decodeGroupHead(changed, SIZE), at < 12 ? UsageError : IntegrityError);
  }));
  for (const length of [0, 1, 8, 100, GROUP_HEAD_BYTES - 1]) {
    assertThrows(() => decodeGroupHead(head.subarray(0, length), SIZE), UsageError, "no group");
  }
  assertThrows(() => decodeGroupHead(head, SIZE - 1), IntegrityError, "bytes, not");
  assertThrows(() => decodeGroupHead(new Uint8Array(GROUP_HEAD_BYTES), SIZE), UsageError);
});

Deno.test("a table that somebody made is read or refused, whatever it says", () => {
  const head = encodeGroupHead(PARTS, 4096);
  const change = fc.tuple(fc.integer({ min: 12, max: 60 }), fc.nat(255));
  fc.assert(
    fc.property(fc.array(change, { maxLength: 8 }), fc.nat(2 ** 21), (changes, size) => {
      const made = head.slice(), view = new DataView(made.buffer);
      for (const [at, byte] of changes) made[at] = byte;
      view.setUint32(12, 0, true);
      view.setUint32(12, crc32(made), true);
      for (const bytes of [size, SIZE]) {
        try {
          for (const part of decodeGroupHead(made, bytes)) {
            assertEquals(part.size > 0 && part.offset + part.size <= bytes, true);
          }
        } catch (error) {
          if (!(error instanceof IntegrityError)) throw error;
        }
      }
    }),
    { numRuns: 2000 },
  );
  made(20, GROUP_PARTS_MOST + 1, "It has 65 parts");
  made(20, 0, "0 parts");
  made(16, 0, "an alignment of 0 bytes");
  made(32, GROUP_NAME_MOST + 1, "A name has 256 bytes");
});

/** The table with another number in it, and the right checksum. */
function made(at: number, value: number, refusal: string): void {
  const head = encodeGroupHead(PARTS, 4096), view = new DataView(head.buffer);
  if (at === 32) view.setUint16(at, value, true);
  else view.setUint32(at, value, true);
  view.setUint32(12, 0, true);
  view.setUint32(12, crc32(head), true);
  assertThrows(() => decodeGroupHead(head, SIZE), IntegrityError, refusal);
}

Deno.test("parts that cannot be a group are refused", () => {
  const refuse = (parts: NamedSize[], refusal: string, alignment = 4096) =>
    assertThrows(() => encodeGroupHead(parts, alignment), UsageError, refusal);
  const many = Array.from({ length: GROUP_PARTS_MOST + 1 }, (_, i) => ({ name: `${i}`, size: 1 }));
  refuse([], "0 parts");
  refuse(many, "65 parts");
  refuse([{ name: "", size: 1 }], "by 0 bytes");
  refuse([{ name: "é".repeat(128), size: 1 }], "by 256 bytes");
  refuse([{ name: "\ud800", size: 1 }], "UTF-8");
  refuse([{ name: "a", size: 1 }, { name: "a", size: 2 }], "two parts of the name a");
  refuse([{ name: "a", size: 0 }], "a part of 0 bytes");
  refuse([{ name: "a", size: 1 }], "an alignment", 0);
});
