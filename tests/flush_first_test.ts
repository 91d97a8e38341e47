/** The stage that flushes first: the contract, what waits for the flush, and where that fails. */
import { assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../ffi/libc.ts";
import { ConnectionError } from "../lib/backend/errors.ts";
import { openMemory } from "../lib/backend/memory.ts";
import { flushFirst } from "../lib/chunk/flush_first.ts";
import { testBackend } from "./backend_conformance.ts";
import { Gate, settle } from "./gate.ts";
import { ScheduledBackend } from "./scheduled_backend.ts";

openLibc();

const SIZE = 1 << 20;

testBackend("a region in memory that is flushed first", {
  open: () => flushFirst(openMemory({ size: SIZE + 7 })),
});

/** Over a region behind a gate, of which so many flushes fail. */
function gated(failures: number) {
  const gate = new Gate();
  gate.hold(/flush/);
  const fails = () => gate.log.at(-1) === "flush 0+0" && failures-- > 0;
  return { gate, stage: flushFirst(new ScheduledBackend({ size: SIZE, step: gate.step, fails })) };
}

Deno.test("everything waits for one flush, which begins at once", async () => {
  const { gate, stage } = gated(0);
  const all = [
    stage.readAt(new Uint8Array(10), 0),
    stage.writeAt(new Uint8Array(20), 0),
    stage.zero!(0, 30),
  ];
  await settle();
  assertEquals(gate.log, ["flush 0+0"]);
  gate.open();
  await Promise.all(all);
  assertEquals(gate.log.slice(1).sort(), ["read 0+10", "write 0+20", "zero 0+30"]);
  await stage.flush();
  assertEquals(gate.log.length, 5, "A later flush goes through");
  await stage.close();
});

Deno.test("where the flush fails the next call tries it again", async () => {
  const { gate, stage } = gated(2);
  await settle();
  const read = assertRejects(
    async () => await stage.readAt(new Uint8Array(10), 0),
    ConnectionError,
  );
  gate.open();
  await read;
  await assertRejects(async () => await stage.writeAt(new Uint8Array(10), 0), ConnectionError);
  await stage.writeAt(new Uint8Array(10), 0);
  assertEquals(gate.log, ["flush 0+0", "flush 0+0", "flush 0+0", "write 0+10"]);
  await stage.close();
});
