/** Who may slow the program at the source, whom it stays slow for, and when it is not any more. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { DeadlineError, errorCode } from "../../lib/backend/errors.ts";
import type { FinalizeOptions } from "../../lib/migration/leecher_core.ts";
import { MovingRegion } from "../defects/moving_region.ts";
import { inTime } from "../in_time.ts";

openLibc();

const CHUNK = 4096, SIZE = 8 * CHUNK;
/** Cannot be met; so long it is tried, which is far more than the rounds before the first throttling. */
const VAIN: FinalizeOptions = {
  ...{ maxDowntime: 0, maxTime: 400, offerMs: 10_000, confirm: "after", strategy: "throttle" },
};

/** A region, and the rates that its program was asked to keep to. */
function slowed(): { moving: MovingRegion; rates: number[] } {
  const rates: number[] = [];
  const program = { throttle: (rate: number) => void rates.push(rate) };
  return { moving: new MovingRegion({ size: SIZE, chunkSize: CHUNK, program }), rates };
}

Deno.test("who does not follow cannot slow the program, nor have it write faster again", async () => {
  const { moving: region, rates } = slowed();
  await using moving = region;
  const one = moving.client(1), stranger = moving.client(3);
  const request = { rate: 1000, milliseconds: 60_000 };
  const isRefused = async (rate: number) => {
    const error = await assertRejects(() => stranger.throttle({ ...request, rate }));
    assertEquals(errorCode(error), "ESTALE");
  };
  await isRefused(1);
  assertEquals([rates, moving.source.slow.isSlow], [[], false]);
  await one.track({ chunkSize: CHUNK });
  await one.throttle(request);
  await isRefused(1);
  await isRefused(0);
  await stranger.cancel({ epoch: 0 });
  assertEquals([rates, moving.source.slow.isSlow], [[1000], true]);
});

Deno.test("a program stays slow for one who follows when another one gives up or goes away", async () => {
  const { moving: region, rates } = slowed();
  await using moving = region;
  const one = moving.client(1), other = moving.client(2);
  for (const follower of [one, other]) await follower.track({ chunkSize: CHUNK });
  await one.throttle({ rate: 1000, milliseconds: 60_000 });
  await other.throttle({ rate: 0, milliseconds: 1 });
  await other.cancel({ epoch: 0 });
  assertEquals(rates, [1000]);
  await one.throttle({ rate: 0, milliseconds: 1 });
  assertEquals([rates, moving.source.slow.isSlow], [[1000, Infinity], false]);
});

Deno.test("where slowing it was in vain, the program is as fast as before", async () => {
  const { moving: region, rates } = slowed();
  await using moving = region;
  await using target = await moving.leech();
  await assertRejects(() => inTime(target.core.finalize(VAIN)), DeadlineError, "would be needed");
  const last = rates.pop();
  assert(rates.length > 0 && rates.every((rate) => rate < Infinity), `It was asked for ${rates}`);
  assertEquals([last, moving.source.slow.isSlow], [Infinity, false]);
  assertEquals(target.core.metrics.throttledRate, 0);
  assertEquals([moving.running, moving.seeder.stage], [true, "serving"]);
});

Deno.test("a source that has forgotten who wants it slowed is followed anew, and slowed then", async () => {
  const { moving: region, rates } = slowed();
  await using moving = region;
  await using target = await moving.leech({ leech: new Uint8Array(16).fill(7) });
  let times = 0;
  moving.before = async (type) => {
    if (type === "throttle" && times++ === 0) await moving.client(7).cancel({ epoch: 0 });
  };
  await assertRejects(() => inTime(target.core.finalize(VAIN)), DeadlineError, "would be needed");
  assertEquals(moving.asked.filter((type) => type === "track").length, 2);
  assert(times > 1 && rates[0]! < Infinity, `It was asked for ${rates}`);
});
