import { assertEquals } from "@std/assert";
import { readCpuTimes, stolenShare } from "./stolen_time.ts";

const BEFORE = "cpu  100 10 50 1000 20 5 5 30 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";

Deno.test("what the host took is a share of the time that was wanted, idle time aside", () => {
  const after = "cpu  130 20 70 9000 99 10 15 55 7 7\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
  // 30 + 10 + 20 + 5 + 10 busy, and 25 stolen.
  assertEquals(stolenShare(BEFORE, after), 0.25);
});

Deno.test("nothing was stolen where nothing was to do", () => {
  assertEquals(stolenShare(BEFORE, BEFORE), 0);
});

Deno.test("the share of this machine is one of 0 to 1", () => {
  const before = readCpuTimes(), end = performance.now() + 20;
  while (performance.now() < end);
  const share = stolenShare(before, readCpuTimes());
  assertEquals(share >= 0 && share < 1, true, `${share}`);
});
