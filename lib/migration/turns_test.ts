import { assertEquals, assertRejects } from "@std/assert";
import { DeadlineError } from "../backend/errors.ts";
import { Turns } from "./turns.ts";

const late = () => new DeadlineError("It is late");

Deno.test("one action begins when the one before is over, also where that failed", async () => {
  const turns = new Turns(), log: string[] = [];
  const { promise, reject } = Promise.withResolvers<void>();
  const first = turns.take(() => promise.finally(() => log.push("first")));
  const second = turns.take(() => Promise.resolve(log.push("second")));
  const over = turns.over().then(() => log.push("over"));
  reject(new Error("It failed"));
  await assertRejects(() => first, Error, "It failed");
  assertEquals(await second, 2);
  await over;
  assertEquals(log, ["first", "second", "over"]);
});

Deno.test("an action whose turn comes late does not begin at all", async () => {
  const turns = new Turns();
  const { promise, resolve } = Promise.withResolvers<void>();
  const first = turns.take(() => promise);
  let began = false;
  const act = () => Promise.resolve(void (began = true));
  await assertRejects(() => turns.takeWithin(1, act, late), DeadlineError);
  resolve();
  await first;
  await turns.over();
  assertEquals(began, false);
});

Deno.test("an action that began in time may take its time", async () => {
  const turns = new Turns();
  const act = () => new Promise<void>((resolve) => setTimeout(resolve, 20));
  await turns.takeWithin(1, act, late);
  await assertRejects(
    () => turns.takeWithin(1, () => Promise.reject(new Error("It failed")), late),
    Error,
    "It failed",
  );
});
