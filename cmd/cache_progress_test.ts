import { assertEquals } from "@std/assert";
import { cacheLine, profileLine } from "./cache_progress.ts";

const progress = {
  size: 64 << 20,
  localBytes: 16 << 20,
  dirtyBytes: 3 << 19,
  pulledBytes: 0,
  rate: 0,
  latency: 0,
  closedInOrder: true,
};

Deno.test("the line of a cache tells how full it is, and what it owes", () => {
  assertEquals(cacheLine(progress), "local 25%  dirty 1536KiB");
});

Deno.test("the line of a cache that is filled tells how fast", () => {
  const filled = { ...progress, rate: 96 << 20, latency: 24.6 };
  assertEquals(cacheLine(filled), "local 25%  dirty 1536KiB  96 MiB/s  round trip 25 ms");
  assertEquals(cacheLine({ ...filled, latency: 0.21 }).split("  ").at(-1), "round trip 0.2 ms");
});

Deno.test("the line of a cache with a profile tells how far that is right", () => {
  const profile = { expected: 320, used: 12, wasted: 308, missed: 3 };
  const line = "local 25%  dirty 1536KiB  profile 12 of 320 used, 3 missed";
  assertEquals(cacheLine({ ...progress, profile }), line);
  assertEquals(profileLine(profile), "Profile: 12 of 320 chunks used, 308 wasted, 3 missed");
});

Deno.test("of a profile that is recorded for the first time only its length is told", () => {
  const profile = { expected: 0, used: 0, wasted: 0, missed: 15 };
  assertEquals(cacheLine({ ...progress, profile }), "local 25%  dirty 1536KiB");
  assertEquals(profileLine(profile), "Profile: 15 chunks recorded");
});
