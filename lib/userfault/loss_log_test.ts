import { assertEquals } from "@std/assert";
import { LossLog } from "./loss_log.ts";

const GONE = "Cannot page in what lies at offset 4096 of the region: the disk is gone";

Deno.test("LossLog tells once of what goes on failing, and once that it is over", () => {
  const lines: string[] = [];
  const losses = new LossLog((line) => lines.push(line));
  losses.recovered();
  assertEquals(lines, []);
  losses.failed(4096, new Error("the disk is gone"));
  losses.failed(8192, new Error("the disk is gone"));
  assertEquals(lines, [GONE]);
  losses.recovered();
  losses.recovered();
  assertEquals(lines, [GONE, "Paging in goes on"]);
});

Deno.test("LossLog tells of a failure after a recovery at once, whatever was thrown", () => {
  const lines: string[] = [];
  const losses = new LossLog((line) => lines.push(line));
  losses.failed(0, "no route");
  losses.recovered();
  losses.failed(4096, new Error("the disk is gone"));
  const first = "Cannot page in what lies at offset 0 of the region: no route";
  assertEquals(lines, [first, "Paging in goes on", GONE]);
});
