/** After a forced handover, what the program wrote last is fetched before all else that is missing. */
import { assertEquals } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { assertBytes, pattern, readBack } from "../backend_model.ts";
import { MovingRegion } from "../defects/moving_region.ts";
import { inTime } from "../in_time.ts";

openLibc();

const CHUNK = 64 << 10, COUNT = 64, SIZE = COUNT * CHUNK;

Deno.test("what was written last comes first once a region is forced over, then the rest", async () => {
  const expected = pattern(SIZE, 1), last = COUNT - 1;
  await using moving: MovingRegion = new MovingRegion({
    ...{ size: SIZE, chunkSize: CHUNK },
    program: {
      suspend: async () => {
        expected.set(pattern(CHUNK, 2), last * CHUNK);
        await moving.source.writeAt(pattern(CHUNK, 2), last * CHUNK);
      },
    },
  });
  moving.store.bytes.set(expected);
  moving.gate.hold(/^read/);
  await using target = await moving.leech({ pullWorkers: 1 });
  await inTime(moving.gate.held(1));
  await inTime(target.core.finalize({
    ...{ maxDowntime: 1000, maxTime: 0, offerMs: 10_000, confirm: "after", strategy: "force" },
  }));
  await inTime(moving.gate.held(2));
  const first = `read 0+${16 * CHUNK}`, next = `read ${last * CHUNK}+${CHUNK}`;
  assertEquals(moving.gate.waiting, [first, next]);
  moving.gate.pass();
  await inTime(moving.gate.held(1));
  assertEquals(moving.gate.waiting, [`read ${16 * CHUNK}+${16 * CHUNK}`]);
  moving.gate.open();
  await inTime(target.core.complete());
  assertBytes(await readBack(target.region, 0, SIZE), expected, "The region");
});
