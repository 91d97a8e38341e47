import { assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { SharedRun } from "./shared_run.ts";

Deno.test("a run begins after each call, and one is under way at a time", async () => {
  const property = fc.asyncProperty(
    fc.scheduler(),
    fc.array(fc.nat(5), { minLength: 1, maxLength: 20 }),
    async (scheduler, delays) => {
      let begun = 0, underWay = 0, most = 0;
      const shared = new SharedRun(async () => {
        begun++;
        most = Math.max(most, ++underWay);
        await scheduler.schedule(Promise.resolve());
        underWay--;
      });
      const calls = delays.map(async (delay) => {
        for (let turn = 0; turn < delay; turn++) await scheduler.schedule(Promise.resolve());
        const before = begun;
        await shared.run();
        assertEquals(begun > before, true, "A run began after the call");
      });
      await scheduler.waitFor(Promise.all(calls));
      await shared.idle();
      assertEquals(most, 1);
      assertEquals(shared.running, false);
    },
  );
  await fc.assert(property);
});

Deno.test("a failed run fails who waited for it, and nobody else", async () => {
  let runs = 0;
  const shared = new SharedRun(() => {
    if (++runs === 1) throw new RangeError("no");
    return Promise.resolve();
  });
  const [first, second] = [shared.run(), shared.run()];
  await assertRejects(() => first, RangeError);
  await second;
  await shared.run();
  assertEquals(runs, 3);
});
