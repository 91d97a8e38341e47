/** Waiting for moments: never less than was asked for, and nobody is forgotten. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { openLibc } from "../../ffi/libc.ts";
import { DueQueue } from "./due_queue.ts";

openLibc();

Deno.test("nobody waits for less than was asked for, and all are answered", async () => {
  const delay = fc.integer({ min: 0, max: 12_000 }).map((microseconds) => microseconds / 1000);
  const delays = fc.array(delay, { minLength: 1, maxLength: 30, size: "max" });
  const property = fc.asyncProperty(delays, async (all) => {
    const queue = new DueQueue();
    const answered: number[] = [];
    await Promise.all(all.map(async (delay) => {
      const at = performance.now() + delay;
      await queue.until(at);
      assert(performance.now() >= at, `${performance.now()} of ${at}`);
      if (delay > 0) answered.push(at);
    }));
    assertEquals(answered.length, all.filter((delay) => delay > 0).length);
    await queue.close();
  });
  await fc.assert(property, { numRuns: 30 });
});

Deno.test("a moment that is sooner than all others is waited for alone", async () => {
  const queue = new DueQueue();
  const now = performance.now();
  const order: string[] = [];
  const wait = async (name: string, at: number) => {
    await queue.until(at);
    order.push(name);
  };
  const far = wait("far", now + 60_000);
  const later = wait("later", now + 60);
  await wait("soon", now + 5);
  await wait("next", now + 8);
  assertEquals(order, ["soon", "next"]);
  await later;
  await queue.close();
  await far;
  assertEquals(order, ["soon", "next", "later", "far"]);
});

Deno.test("those of the same moment are answered in the order in which they came", async () => {
  const queue = new DueQueue();
  const at = performance.now() + 2;
  const order: number[] = [];
  await Promise.all(Array.from({ length: 50 }, async (_, index) => {
    await queue.until(at);
    order.push(index);
  }));
  assertEquals(order, Array.from({ length: 50 }, (_, index) => index));
  await queue.close();
});

Deno.test("who comes late is answered behind those who wait for that moment", async () => {
  const queue = new DueQueue();
  const at = performance.now() + 1;
  const order: string[] = [];
  const wait = async (name: string) => {
    await queue.until(at);
    order.push(name);
  };
  const waiting = [wait("first"), wait("second")];
  while (performance.now() <= at);
  waiting.push(wait("late"));
  await Promise.all(waiting);
  assertEquals(order, ["first", "second", "late"]);
  await queue.close();
});

Deno.test("nobody waits for a queue that is closed", async () => {
  const queue = new DueQueue();
  const waiting = [0.1, 2, 10, 60_000].map((delay) => queue.until(performance.now() + delay));
  await queue.close();
  await Promise.all([...waiting, queue.until(performance.now() + 60_000), queue.close()]);
});
