import { assertEquals, assertThrows } from "@std/assert";
import { parseDuration } from "./duration.ts";
import { UsageError } from "./errors.ts";

Deno.test("times are read with every unit", () => {
  const times: Record<string, number> = {
    "0": 0,
    "25ms": 25,
    "1.5s": 1500,
    "500us": 0.5,
    "2min": 120_000,
    "1h": 3_600_000,
  };
  for (const [text, milliseconds] of Object.entries(times)) {
    assertEquals(parseDuration(text), milliseconds, text);
  }
});

Deno.test("what is no time is refused", () => {
  for (const text of ["", "25", "ms", "-1s", "1 s", "1.s", "1e3s", "1S", "1d", "0x1s", "1s2"]) {
    assertThrows(() => parseDuration(text), UsageError, "25ms", text);
  }
});
