import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { testReadOnlyBackend } from "../../tests/read_only_conformance.ts";
import { UsageError } from "./errors.ts";
import { openPattern, Pattern } from "./pattern.ts";

const TIB = 2 ** 40;

for (const size of [3_000_001, TIB]) {
  const known = new Pattern(7);
  testReadOnlyBackend(`a pattern of ${size} bytes`, {
    open: () => openPattern({ size, seed: 7 }),
    fill: (buffer, offset) => known.fill(buffer, offset),
  });
}

function bytesAt(pattern: Pattern, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  pattern.fill(bytes, offset);
  return bytes;
}

Deno.test("Pattern stays what it is from version to version", () => {
  const known: [seed: number, offset: number, bytes: string][] = [
    [0, 0, "f1 80 6f ae ea 15 b7 b8"],
    [7, 0, "cc c3 7c 7b cd 16 e9 fd"],
    [7, TIB, "fa 7f 5d c1 8c 9d fc 36"],
    [Number.MAX_SAFE_INTEGER, 1_048_567, "9a 8d a4 de 91 71 c6 60"],
  ];
  for (const [seed, offset, bytes] of known) {
    assertEquals(bytesAt(new Pattern(seed), offset, 8).toHex(), bytes.replaceAll(" ", ""));
  }
});

Deno.test("Pattern shows the same bytes however they are asked for", () => {
  const pattern = new Pattern(11);
  const whole = bytesAt(pattern, TIB + 3, 2_500_000);
  fc.assert(
    fc.property(fc.nat(2_499_999), fc.nat(2_500_000), (from, most) => {
      const part = whole.subarray(from, from + most);
      assertEquals(bytesAt(pattern, TIB + 3 + from, part.length).toHex(), part.toHex());
    }),
    { numRuns: 20 },
  );
});

Deno.test("Pattern shows bytes in a wrong place, and of a wrong seed", () => {
  const pattern = new Pattern(5);
  for (const size of [8, 512, 4096, 65536]) {
    const block = bytesAt(pattern, 2 ** 31, size);
    for (let shift = 3; shift < 53; shift++) {
      assertNotEquals(pattern.findDifference(block, (2 ** 31 + 2 ** shift) % 2 ** 53), -1);
    }
    for (let shift = 0; shift < 53; shift++) {
      assertNotEquals(new Pattern(5 + 2 ** shift).findDifference(block, 2 ** 31), -1);
    }
  }
});

Deno.test("Pattern.findDifference() finds the first byte that differs", () => {
  const pattern = new Pattern(3);
  const offset = 12_345;
  const bytes = bytesAt(pattern, offset, 3_000_000);
  assertEquals(pattern.findDifference(bytes, offset), -1);
  assertEquals(pattern.findDifference(new Uint8Array(0), offset), -1);
  for (const index of [2_999_999, 2_000_000, 1_036_223, 1_036_222, 1, 0]) {
    bytes[index]! ^= 1;
    assertEquals(pattern.findDifference(bytes, offset), index);
  }
});

Deno.test("Pattern has no two halves of words in common with another seed", () => {
  const period = 131_071 * 8;
  const [first, second] = [0, 1].map((seed) => {
    return new Set(new Uint32Array(bytesAt(new Pattern(seed), 0, period).buffer));
  });
  const common = [...first!].filter((half) => second!.has(half)).length;
  // By chance, 262142 * 262142 / 2^32 = 16 are.
  assert(common < 60, `${common} halves are in both`);
});

Deno.test("openPattern() refuses sizes and seeds that are none", () => {
  for (const size of [0, -1, 1.5, NaN, 2 ** 53]) {
    assertThrows(() => openPattern({ size }), UsageError, "give it a whole number of bytes");
  }
  for (const seed of [-1, 1.5, NaN, 2 ** 53]) {
    assertThrows(() => openPattern({ size: 1, seed }), UsageError, "seed");
  }
});
