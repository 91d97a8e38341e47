/**
 * What a leecher promises who takes a region over, and what implementations of such mounts are known
 * to break: callers side by side that undo one another's work, waiting that is busy, and failures
 * that stay for ever.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { DeadlineError, TelemapError } from "../../lib/backend/errors.ts";
import type { FinalizeOptions } from "../../lib/migration/leecher_core.ts";
import { assertBytes, pattern, readBack } from "../backend_model.ts";
import { inTime } from "../in_time.ts";
import { MovingRegion } from "./moving_region.ts";

openLibc();

const CHUNK = 64 << 10, SIZE = 32 * CHUNK;

const WAIT: FinalizeOptions = {
  ...{ maxDowntime: 1000, maxTime: 60_000, offerMs: 10_000, confirm: "after", strategy: "wait" },
};
/** So long waiting is watched, in ms. */
const WATCHED_MS = 300;

Deno.test("a region that is taken over twice at a time is taken over once", async () => {
  const expected = pattern(SIZE, 10);
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  moving.store.bytes.set(expected);
  await using target = await moving.leech();
  await target.core.copied();
  for (const chunk of [3, 4, 20, 31]) {
    await moving.source.writeAt(pattern(CHUNK, chunk), chunk * CHUNK);
    expected.set(pattern(CHUNK, chunk), chunk * CHUNK);
  }
  await inTime(Promise.all([target.core.finalize(WAIT), target.core.finalize(WAIT)]));
  await inTime(Promise.all([target.core.complete(), target.core.complete()]));
  assertEquals(moving.records, ["given", "released"]);
  assertBytes(await readBack(target.region, 0, SIZE), expected, "The region");
});

Deno.test("rounds that find nothing do not follow one another without a pause", async () => {
  await using moving = new MovingRegion({ size: CHUNK, chunkSize: CHUNK });
  await using target = await moving.leech();
  await target.core.copied();
  const goal = { ...WAIT, maxDowntime: 0, maxTime: WATCHED_MS };
  await assertRejects(() => inTime(target.core.finalize(goal)), DeadlineError);
  const { rounds } = target.core.metrics;
  assert(rounds <= WATCHED_MS / 5, `${rounds} rounds in ${WATCHED_MS} ms`);
});

Deno.test("where copying failed for long, a region can be taken over once it works again", async () => {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  moving.store.bytes.set(pattern(SIZE, 1));
  moving.fails = (name) => name.startsWith("read");
  await using target = await moving.leech();
  await assertRejects(() => inTime(target.core.copied()), TelemapError, "Lost before");
  moving.fails = () => false;
  await inTime(target.core.finalize(WAIT));
  await inTime(target.core.complete());
  assertBytes(await readBack(target.region, 0, SIZE), pattern(SIZE, 1), "The region");
});

Deno.test("closing a leecher ends its takeover, and the program goes on", async () => {
  const suspended = Promise.withResolvers<void>(), resumed = Promise.withResolvers<void>();
  const program = { suspend: () => suspended.promise, resume: resumed.resolve };
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK, program });
  const target = await moving.leech();
  const taken = assertRejects(() => target.core.finalize(WAIT), TelemapError);
  await inTime(moving.whenAsked("suspend"));
  const closing = target[Symbol.asyncDispose]();
  await inTime(moving.whenAsked("cancel"));
  suspended.resolve();
  await inTime(Promise.all([closing, taken, resumed.promise]));
  assertEquals(moving.seeder.stage === "given", false);
});

Deno.test("a takeover does not wait for ever behind a round whose source does not answer", async () => {
  const answering = Promise.withResolvers<void>();
  let isAnswering = true;
  const program = { flush: () => isAnswering ? undefined : answering.promise };
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK, program });
  {
    await using target = await moving.leech();
    await target.core.copied();
    isAnswering = false;
    void target.core.follow(1).catch(() => {});
    await inTime(moving.whenAsked("dirty"));
    const taking = () => inTime(target.core.finalize({ ...WAIT, maxTime: 0 }));
    await assertRejects(taking, DeadlineError, "does not answer");
    answering.resolve();
  }
  assertEquals(moving.seeder.stage, "serving");
});
