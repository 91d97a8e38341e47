import { assertEquals } from "@std/assert";
import { FlushLedger } from "./flush_ledger.ts";

Deno.test("FlushLedger doubts what was acknowledged and not flushed when a connection was lost", () => {
  const ledger = new FlushLedger();
  ledger.connectionLost();
  assertEquals(ledger.isInDoubt(ledger.mark), false);
  ledger.acknowledge();
  assertEquals(ledger.isInDoubt(ledger.mark), false);
  ledger.connectionLost();
  assertEquals(ledger.isInDoubt(0), false);
  assertEquals(ledger.isInDoubt(ledger.mark), true);
});

Deno.test("FlushLedger does not doubt what was flushed", () => {
  const ledger = new FlushLedger();
  ledger.acknowledge();
  const { mark } = ledger;
  ledger.acknowledge();
  ledger.flushed(mark);
  ledger.connectionLost();
  assertEquals(ledger.isInDoubt(mark), false);
  assertEquals(ledger.isInDoubt(ledger.mark), true);
});

Deno.test("FlushLedger reports each doubt once", () => {
  const ledger = new FlushLedger();
  ledger.acknowledge();
  const early = ledger.mark;
  ledger.acknowledge();
  ledger.connectionLost();
  ledger.report(early);
  assertEquals(ledger.isInDoubt(early), false);
  assertEquals(ledger.isInDoubt(ledger.mark), true);
  ledger.report(ledger.mark);
  ledger.acknowledge();
  assertEquals(ledger.isInDoubt(ledger.mark), false);
  ledger.connectionLost();
  assertEquals(ledger.isInDoubt(ledger.mark), true);
});
