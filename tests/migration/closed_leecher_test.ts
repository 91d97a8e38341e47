/** Leechers that are closed amid a handover: what was not received is never taken for the region. */
import { assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { ClosedError, TelemapError } from "../../lib/backend/errors.ts";
import type { FinalizeOptions } from "../../lib/migration/leecher_core.ts";
import { assertBytes, pattern, readBack } from "../backend_model.ts";
import { inTime } from "../in_time.ts";
import { MovingRegion } from "../defects/moving_region.ts";

openLibc();

const CHUNK = 64 << 10, SIZE = 8 * CHUNK;
const AHEAD: FinalizeOptions = {
  ...{ maxDowntime: 1000, maxTime: 60_000, offerMs: 10_000, confirm: "ahead", strategy: "wait" },
};

Deno.test("a region that was given before its last set came is whole where its leecher opens again", async () => {
  const path = Deno.makeTempDirSync({ prefix: "telemap-test-" });
  const expected = pattern(SIZE, 1);
  const given = Promise.withResolvers<void>();
  await using moving = new MovingRegion({
    ...{ size: SIZE, chunkSize: CHUNK },
    program: {
      async suspend() {
        await moving.source.writeAt(pattern(CHUNK, 2), 3 * CHUNK);
        expected.set(pattern(CHUNK, 2), 3 * CHUNK);
        moving.gate.hold(/^read/);
      },
      record: (state) => state === "given" ? given.resolve() : undefined,
    },
  });
  moving.store.bytes.set(expected);
  try {
    const cache = `file:${path}/copy`;
    {
      await using target = await moving.leech({ cache });
      await target.core.copied();
      const taking = assertRejects(() => target.core.finalize(AHEAD), TelemapError);
      await inTime(given.promise);
      const closing = target.core.close();
      await inTime(Promise.all([closing, taking]));
      moving.gate.open();
    }
    await using target = await moving.leech({ cache });
    await inTime(target.core.finalize(AHEAD));
    assertBytes(await readBack(target.region, 0, SIZE), expected, "The region");
    await inTime(target.core.complete());
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
});

Deno.test("a source is not let go of by a leecher that is closed before it has compared all", async () => {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  moving.store.bytes.set(pattern(SIZE, 1));
  await using target = await moving.leech();
  await inTime(target.core.finalize(AHEAD));
  moving.gate.hold(/^read/);
  const completing = assertRejects(() => target.core.complete(), ClosedError);
  await inTime(moving.whenAsked("digests"));
  await target.core.close();
  moving.gate.open();
  await inTime(completing);
  assertEquals([moving.records, target.core.isOver], [["given"], false]);
});

Deno.test("a copy that is abandoned while its source gives it away is the region, and can be used", async () => {
  const recording = Promise.withResolvers<void>(), written = Promise.withResolvers<void>();
  await using moving = new MovingRegion({
    ...{ size: SIZE, chunkSize: CHUNK },
    program: {
      record: (state) => {
        if (state !== "given") return;
        recording.resolve();
        return written.promise;
      },
    },
  });
  moving.store.bytes.set(pattern(SIZE, 1));
  await using target = await moving.leech();
  const taking = target.core.finalize({ ...AHEAD, confirm: "after" });
  await inTime(recording.promise);
  const abandoning = target.region.abandon();
  written.resolve();
  await inTime(Promise.all([abandoning, taking]));
  assertBytes(await inTime(readBack(target.region, 0, SIZE)), pattern(SIZE, 1), "The region");
});
