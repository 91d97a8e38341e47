import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { isZero } from "./zeroes.ts";

Deno.test("isZero() holds for zeroes of any length at any alignment", () => {
  const buffer = new Uint8Array(300).fill(0xff);
  for (let at = 0; at < 8; at++) {
    for (let length = 0; length < 200; length++) {
      buffer.fill(0xff);
      assertEquals(isZero(buffer.fill(0, at, at + length).subarray(at, at + length)), true);
    }
  }
});

Deno.test("isZero() sees a single byte anywhere", () => {
  const cases = fc.tuple(
    fc.integer({ min: 1, max: 5000 }),
    fc.nat(7),
    fc.nat(),
    fc.integer({ min: 1, max: 255 }),
  );
  fc.assert(
    fc.property(cases, ([length, at, where, byte]) => {
      const bytes = new Uint8Array(length + at).subarray(at);
      bytes[where % length] = byte;
      assertEquals(isZero(bytes), false);
    }),
    { numRuns: 1000 },
  );
});
