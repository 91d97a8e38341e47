/** Digests that a source tells are of what its region holds, whatever it told, or could not read, before. */
import { assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { RemoteError } from "../../lib/backend/errors.ts";
import { digestOf } from "../../lib/chunk/digests.ts";
import { assertBytes, pattern, readBack } from "../backend_model.ts";
import { MovingRegion } from "../defects/moving_region.ts";
import { inTime } from "../in_time.ts";

openLibc();

const CHUNK = 4096, SIZE = 8 * CHUNK;

Deno.test("what was written between a stranger's look and the first follower is compared as it is", async () => {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  const stranger = moving.client(1), leecher = moving.client(2);
  await stranger.digests({ chunk: 0, count: 8 });
  await moving.source.writeAt(pattern(CHUNK, 1), 5 * CHUNK);
  await leecher.track({ chunkSize: CHUNK });
  const { digests } = await leecher.digests({ chunk: 5, count: 1 });
  assertEquals(digests, digestOf(pattern(CHUNK, 1)));
});

Deno.test("a source that could not be read for a moment can be compared with, and let go of", async () => {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  moving.store.bytes.set(pattern(SIZE, 2));
  await using target = await moving.leech();
  await inTime(target.core.finalize({
    ...{ maxDowntime: 1000, maxTime: 60_000, offerMs: 10_000, confirm: "after", strategy: "wait" },
  }));
  moving.fails = (name) => name.startsWith(`read ${3 * CHUNK}+`);
  await assertRejects(() => inTime(target.core.complete()), RemoteError, "Lost before");
  moving.fails = () => false;
  await inTime(target.core.complete());
  assertEquals(moving.records, ["given", "released"]);
  assertBytes(await readBack(target.region, 0, SIZE), pattern(SIZE, 2), "The region");
});
