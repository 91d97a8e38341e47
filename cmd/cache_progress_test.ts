import { assertEquals } from "@std/assert";
import { cacheLine } from "./cache_progress.ts";

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
