import { assertEquals } from "@std/assert";
import { HeldRest } from "./held_rest.ts";

const NEVER = 2 ** 31 - 1;

function holding(): HeldRest {
  return new HeldRest(Float64Array.of(10, 20, 30, 31), 100);
}

Deno.test("where nothing is expected, nothing is held back", async () => {
  const rest = new HeldRest(new Float64Array(0), 100);
  assertEquals(rest.isHeld, false);
  await rest.until(NEVER);
});

Deno.test("the rest is held back while what is expected is waited for, and a moment longer", async () => {
  const rest = holding();
  for (let fault = 0; fault < 20; fault++) {
    rest.fault(10, 20);
    rest.fault(30, 31);
  }
  assertEquals(rest.isHeld, true);
  await rest.until(1);
  assertEquals(rest.isHeld, false);
});

Deno.test("who waits for something else has it released, but for some times", async () => {
  for (const [from, to] of [[20, 21], [19, 21], [9, 11], [99, 100]] as const) {
    const rest = holding();
    const released = rest.until(NEVER);
    for (let stray = 0; stray < 4; stray++) {
      rest.fault(from, to);
      rest.fault(12, 13);
    }
    assertEquals(rest.isHeld, true);
    rest.fault(from, to);
    assertEquals(rest.isHeld, false);
    await released;
  }
});

Deno.test("it is released for who asks", async () => {
  const rest = holding();
  const released = rest.until(NEVER);
  rest.release();
  await released;
  assertEquals(rest.isHeld, false);
});
