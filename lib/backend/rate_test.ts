import { assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "./errors.ts";
import { parseRate } from "./rate.ts";

Deno.test("rates are sizes a second", () => {
  assertEquals(["100MB/s", "1.5GiB/s", "7/s"].map(parseRate), [1e8, 1.5 * 2 ** 30, 7]);
});

Deno.test("what is no rate is refused", () => {
  for (
    const text of ["", "100MB", "100MB/min", "100MB/s/s", "/s", "fast/s", "100MB/S", "1Mbit/s"]
  ) {
    assertThrows(() => parseRate(text), UsageError, "Cannot read", text);
  }
});
