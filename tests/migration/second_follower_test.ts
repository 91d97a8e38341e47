import { openLibc } from "../../ffi/libc.ts";
import { assertEquals, assertRejects } from "@std/assert";
import { FencedError } from "../../lib/backend/errors.ts";
import type { FinalizeOptions } from "../../lib/migration/leecher_core.ts";
import { inTime } from "../in_time.ts";
import { MovingRegion } from "../defects/moving_region.ts";

openLibc();

const CHUNK = 64 << 10, SIZE = 4 * CHUNK;
const GOAL: FinalizeOptions = {
  ...{ maxDowntime: 1000, maxTime: 60_000, offerMs: 10_000, confirm: "auto", strategy: "wait" },
};

Deno.test("who follows on once somebody else has the region is told so", async () => {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  await using one = await moving.leech();
  await using other = await moving.leech();
  const following = other.core.follow(1);
  await inTime(one.core.finalize(GOAL));
  await assertRejects(() => inTime(following), FencedError, "somebody else");
  await inTime(one.core.complete());
  assertEquals([one.core.isOver, other.core.isOwner], [true, false]);
});

Deno.test("so is who asks for it without looking, and follows on", async () => {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  await using one = await moving.leech();
  await using other = await moving.leech();
  await inTime(other.core.copied());
  await inTime(one.core.finalize(GOAL));
  const force: FinalizeOptions = { ...GOAL, strategy: "force", maxTime: 0 };
  await assertRejects(() => inTime(other.core.finalize(force)), FencedError, "somebody else");
  await assertRejects(() => inTime(other.core.follow(1)), FencedError, "somebody else");
});
