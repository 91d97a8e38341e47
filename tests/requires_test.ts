import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { findCommand, requires, requiresAll, requiresThat, withReason } from "./requires.ts";

Deno.test("needs that are met skip nothing", () => {
  const needs = requires("sh", "/dev/null");
  assertEquals(needs, { ignore: false, reason: "" });
  assertEquals(withReason("reads", needs), "reads");
});

Deno.test("the first unmet need gives the reason", () => {
  const needs = requires("sh", "no-such-command", "/no/such/path");
  assertEquals(needs, { ignore: true, reason: "no-such-command is not installed" });
  assertEquals(
    withReason("reads", needs),
    "reads # skipped: no-such-command is not installed",
  );
});

Deno.test("paths, Python modules and own probes are needs too", () => {
  assertEquals(requires("/no/such/path").reason, "/no/such/path is not there");
  assertMatch(requires("python3:no_such_module").reason, /python3|no_such_module/);
  assertEquals(requiresThat(false, "userfaultfd is off").reason, "userfaultfd is off");
  assertEquals(requiresThat(true, "userfaultfd is off").ignore, false);
  assertEquals(requiresAll(requires("sh"), requiresThat(false, "off")).reason, "off");
});

Deno.test("commands of the system directories are found whatever PATH says", () => {
  assertStringIncludes(findCommand("ldconfig") ?? "", "/ldconfig");
  assertEquals(findCommand("no-such-command"), undefined);
});
