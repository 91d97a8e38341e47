import { assertEquals, assertMatch } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { isOwnerGone, ownerTag } from "./owner.ts";

openLibc();

Deno.test("the tag of a process that lives is not given up", () => {
  assertMatch(ownerTag(), /^telemap:\d+:\d+:\d+$/);
  assertEquals(isOwnerGone(ownerTag()), false);
});

Deno.test("a tag with another start time is of a process that is gone", () => {
  const [name, pid, start, namespace] = ownerTag().split(":");
  assertEquals(isOwnerGone(`${name}:${pid}:${Number(start) - 1}:${namespace}`), true);
});

Deno.test("what is not ours, or lives in another pid namespace, is left alone", () => {
  const [name, pid, start] = ownerTag().split(":");
  assertEquals(isOwnerGone(`${name}:${pid}:${Number(start) - 1}:1`), false);
  assertEquals(isOwnerGone("sshfs:1:2:3"), false);
  assertEquals(isOwnerGone("telemap"), false);
});
