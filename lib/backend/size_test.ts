import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { UsageError } from "./errors.ts";
import { formatSize, parseSize } from "./size.ts";

Deno.test("sizes are read with every unit", () => {
  const sizes: Record<string, number> = {
    "0": 0,
    "4096": 4096,
    "4096B": 4096,
    "1KiB": 1024,
    "64MiB": 64 * 2 ** 20,
    "1GiB": 2 ** 30,
    "3TiB": 3 * 2 ** 40,
    "7PiB": 7 * 2 ** 50,
    "1kB": 1e3,
    "1MB": 1e6,
    "1GB": 1e9,
    "2TB": 2e12,
    "9PB": 9e15,
    "1gib": 2 ** 30,
    "1GIB": 2 ** 30,
    "1.5GiB": 1.5 * 2 ** 30,
    "1.0": 1,
    "0.001kB": 1,
    "1.1GB": 1.1e9,
    "007": 7,
    "9007199254740991": Number.MAX_SAFE_INTEGER,
  };
  for (const [text, bytes] of Object.entries(sizes)) assertEquals(parseSize(text), bytes, text);
});

Deno.test("what is no size is refused with the forms that are", () => {
  const wrong = ["", " ", "x", "-1", "+1", "1 GiB", "1G", "1M", "GiB", ".5GiB", "1.GiB", "1e9"];
  for (const text of [...wrong, "0x10", "1,5GiB", "1GiBB", "1GiB\n", "١", "1".repeat(17)]) {
    assertThrows(() => parseSize(text), UsageError, "such as 4096, 64MiB or 1.5GiB", text);
  }
});

Deno.test("a fraction of a byte and more than 2^53 - 1 are refused", () => {
  for (const text of ["0.5", "1.5B", "0.1KiB", "0.0001kB"]) {
    assertThrows(() => parseSize(text), UsageError, "no whole number of bytes");
  }
  for (const text of ["9007199254740992", "8PiB", "10PB", "9999999999999999PiB"]) {
    assertThrows(() => parseSize(text), UsageError, "the most is 9007199254740991");
  }
});

Deno.test("sizes are written with the largest unit that is exact", () => {
  const sizes = { "0": 0, "1": 1, "4097": 4097, "4KiB": 4096, "1536MiB": 1.5 * 2 ** 30 };
  for (const [text, bytes] of Object.entries(sizes)) assertEquals(formatSize(bytes), text);
  for (const wrong of [-1, 0.5, NaN, 2 ** 53]) assertThrows(() => formatSize(wrong), RangeError);
});

Deno.test("what is written is read back", () => {
  const sizes = fc.oneof(
    fc.maxSafeNat(),
    fc.tuple(fc.nat(7), fc.nat(50)).map(([count, bits]) => count * 2 ** bits),
  );
  fc.assert(fc.property(sizes, (bytes) => parseSize(formatSize(bytes)) === bytes));
});
