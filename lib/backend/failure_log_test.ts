import { assertEquals } from "@std/assert";
import { FailureLog } from "./failure_log.ts";

Deno.test("FailureLog tells the first of many failures, whatever was thrown", () => {
  const lines: string[] = [];
  const log = (line: string) => void lines.push(line);
  const failures = new FailureLog("Cannot serve the file", log);
  failures.failed(new Error("the disk is gone"));
  failures.failed(new Error("the disk is still gone"));
  new FailureLog("Cannot serve another", log).failed("no route");
  assertEquals(lines, [
    "Cannot serve the file: the disk is gone",
    "Cannot serve another: no route",
  ]);
});
