/** How long a takeover tries: the copy that comes before it is not counted. */
import { assertEquals } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { openLibc } from "../../ffi/libc.ts";
import { inTime } from "../in_time.ts";
import { MovingRegion } from "../defects/moving_region.ts";

openLibc();

const CHUNK = 64 << 10, SIZE = 8 * CHUNK, MOST_MS = 1000;

Deno.test("a region whose first copy takes longer than a takeover may is taken over all the same", async () => {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  moving.gate.hold(/^read/);
  await using target = await moving.leech();
  const taking = inTime(target.core.finalize({
    ...{ maxDowntime: 1000, maxTime: MOST_MS, offerMs: 10_000, confirm: "after", strategy: "wait" },
  }));
  await delay(1.2 * MOST_MS);
  moving.gate.open();
  await taking;
  assertEquals(moving.seeder.stage, "given");
});
