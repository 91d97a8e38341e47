import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { openLibc } from "./libc.ts";
import {
  effectiveUser,
  pidNamespace,
  processExists,
  processId,
  processStart,
  startOf,
  threadId,
} from "./process.ts";

openLibc();

Deno.test("this process knows its ids and lives", () => {
  assertEquals(processId(), Deno.pid);
  assertEquals(effectiveUser(), Deno.uid());
  assert(processExists(threadId()));
  assert(/^pid:\[\d+\]$/.test(pidNamespace()));
});

Deno.test("a child lives until it ends, and its start tells it from us", async () => {
  const child = new Deno.Command("cat", { stdin: "piped", stdout: "null" }).spawn();
  const start = processStart(child.pid);
  assert(start !== undefined && start > 0);
  assertEquals(processStart(child.pid), start);
  assertNotEquals(processStart(1), start);
  await child.stdin.close();
  await child.status;
  assertEquals(processExists(child.pid), false);
  assertEquals(processStart(child.pid), undefined);
});

Deno.test("a line of /proc/pid/stat is read behind any name; ended and ending processes have no start", () => {
  const line = (flags: number) => `1 7 7 0 -1 ${flags} ${"5 ".repeat(12)}4711 0`;
  const rest = line(0x400000);
  assertEquals(startOf(`7 (a) b (c) R ${rest}`), 4711);
  assertEquals(startOf(`7 (cat) Z ${rest}`), undefined);
  assertEquals(startOf(`7 (cat) D ${line(0x400004)}`), undefined);
  assertEquals(startOf("7 (cat) R 1 2"), undefined);
});
