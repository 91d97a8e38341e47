import { assertEquals } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { hasFatalSignal, isBeingKilled } from "./thread.ts";

openLibc();

function status(masks: Record<string, string>): string {
  return Object.entries({
    SigPnd: "0",
    ShdPnd: "0",
    SigBlk: "0",
    SigIgn: "0",
    SigCgt: "0",
    ...masks,
  })
    .map(([name, mask]) => `${name}:\t${mask.padStart(16, "0")}\n`).join("");
}

Deno.test("hasFatalSignal() is true for what ends a process", () => {
  assertEquals(hasFatalSignal(status({})), false);
  assertEquals(hasFatalSignal(status({ SigPnd: "100" })), true, "SIGKILL");
  assertEquals(hasFatalSignal(status({ ShdPnd: "4000" })), true, "SIGTERM");
});

Deno.test("hasFatalSignal() is false for what is caught, ignored, blocked or harmless", () => {
  for (const by of ["SigCgt", "SigIgn", "SigBlk"]) {
    assertEquals(hasFatalSignal(status({ ShdPnd: "4000", [by]: "4000" })), false, by);
  }
  assertEquals(hasFatalSignal(status({ ShdPnd: "10000" })), false, "SIGCHLD");
  assertEquals(hasFatalSignal(status({ ShdPnd: "8000000" })), false, "SIGWINCH");
});

Deno.test("isBeingKilled() is false for threads that live or do not exist", () => {
  assertEquals(isBeingKilled(Deno.pid), false);
  assertEquals(isBeingKilled(0), false);
  assertEquals(isBeingKilled(0x7fff_fff0), false);
});
