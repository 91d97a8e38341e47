import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { RangeLock } from "./range_lock.ts";

/** Begins an action that lasts until `end` is called, and notes when it runs. */
function action(log: string[], name: string) {
  const { promise, resolve } = Promise.withResolvers<void>();
  const run = () => {
    log.push(name);
    return promise;
  };
  return { run, end: resolve };
}

/** Lets everything that can go on do so. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

Deno.test("RangeLock answers at once what is done at once, and forgets it", () => {
  const lock = new RangeLock();
  assertEquals(lock.exclusive(0, 10, () => 7), 7);
  assertEquals(lock.shared(0, 10, () => 8), 8);
  assertThrows(() =>
    lock.exclusive(0, 10, () => {
      throw new RangeError("no");
    }), RangeError);
  assertEquals(lock.size, 0);
});

Deno.test("RangeLock keeps others off an exclusive range, and nobody off another one", async () => {
  const lock = new RangeLock(), log: string[] = [];
  const one = action(log, "one"), two = action(log, "two"), apart = action(log, "apart");
  const all = [
    lock.exclusive(0, 10, one.run),
    lock.shared(9, 20, two.run),
    lock.exclusive(20, 30, apart.run),
  ];
  assertEquals(log, ["one", "apart"]);
  one.end();
  await settle();
  assertEquals(log, ["one", "apart", "two"]);
  two.end();
  apart.end();
  await Promise.all(all);
  assertEquals(lock.size, 0);
});

Deno.test("RangeLock shares, and lets nobody overtake who waits", async () => {
  const lock = new RangeLock(), log: string[] = [];
  const actions = ["a", "b", "c", "d"].map((name) => action(log, name));
  const all = [
    lock.shared(0, 10, actions[0]!.run),
    lock.shared(0, 10, actions[1]!.run),
    lock.exclusive(5, 6, actions[2]!.run),
    lock.shared(0, 10, actions[3]!.run),
  ];
  assertEquals(log, ["a", "b"]);
  actions[1]!.end();
  await settle();
  assertEquals(log, ["a", "b"]);
  actions[0]!.end();
  await settle();
  assertEquals(log, ["a", "b", "c"]);
  actions[2]!.end();
  await settle();
  assertEquals(log, ["a", "b", "c", "d"]);
  actions[3]!.end();
  await Promise.all(all);
  assertEquals(lock.size, 0);
});

Deno.test("RangeLock goes on after an action that failed", async () => {
  const lock = new RangeLock();
  const failed = lock.exclusive(0, 1, () => Promise.reject(new RangeError("no")));
  const next = lock.exclusive(0, 1, () => "done");
  await assertRejects(async () => await failed, RangeError);
  assertEquals(await next, "done");
  assertEquals(lock.size, 0);
});
