/** What a leecher tells of its migration is what has happened. */
import { assert, assertEquals } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { openLibc } from "../../ffi/libc.ts";
import type { FinalizeOptions } from "../../lib/migration/leecher_core.ts";
import { pattern, readBack } from "../backend_model.ts";
import { MovingRegion } from "../defects/moving_region.ts";
import { inTime } from "../in_time.ts";

openLibc();

const CHUNK = 64 << 10, COUNT = 32, SIZE = COUNT * CHUNK;
/** Chunks that are not zero. */
const FILLED = 8;
const WAIT: FinalizeOptions = {
  ...{ maxDowntime: 1000, maxTime: 60_000, offerMs: 10_000, confirm: "after", strategy: "wait" },
};
/** How long each part takes, in ms: different, so that one is not taken for another. */
const TAKES = { suspend: 90, flush: 30, lastSet: 50, record: 15 } as const;
/** So much earlier than asked for a timer may fire, or a part end whose beginning is seen elsewhere. */
const SLACK_MS = 10;

async function write(moving: MovingRegion, chunk: number): Promise<void> {
  await moving.source.writeAt(pattern(CHUNK, chunk), chunk * CHUNK);
}

Deno.test("zeroes, what was copied again, and the parts of the downtime are told", async () => {
  let isSuspended = false;
  await using moving: MovingRegion = new MovingRegion({
    ...{ size: SIZE, chunkSize: CHUNK },
    program: {
      suspend: async () => {
        isSuspended = true;
        await write(moving, 5);
        await delay(TAKES.suspend);
        moving.gate.hold(new RegExp(`^read ${5 * CHUNK}\\+`));
        void moving.gate.held(1).then(() => setTimeout(() => moving.gate.open(), TAKES.lastSet));
      },
      flush: async () => void (isSuspended && await delay(TAKES.flush)),
      record: async (state) => void (state === "given" && await delay(TAKES.record)),
    },
  });
  moving.store.bytes.set(pattern(FILLED * CHUNK, 1));
  await using target = await moving.leech();
  await inTime(target.core.copied());
  const { zeroBytes, repeatedBytes, localBytes } = target.core.metrics;
  assertEquals([zeroBytes, repeatedBytes, localBytes], [(COUNT - FILLED) * CHUNK, 0, SIZE]);
  await write(moving, 3);
  await write(moving, 20);
  await inTime(target.core.finalize(WAIT));
  const { suspendMs, flushMs, lastSetMs, confirmMs, downtimeMs, ...told } = target.core.metrics;
  assertEquals([told.repeatedBytes, told.lastSetBytes], [3 * CHUNK, CHUNK]);
  const parts = [suspendMs, flushMs, lastSetMs, confirmMs];
  for (const [index, took] of Object.values(TAKES).entries()) {
    assert(parts[index]! > took - SLACK_MS, `${parts} instead of ${Object.values(TAKES)}`);
  }
  const sum = parts.reduce((one, other) => one + other);
  assert(downtimeMs > sum - SLACK_MS, `${downtimeMs} ms for ${parts}`);
  await inTime(target.core.complete());
});

Deno.test("where a region was forced over, each access that waited is counted, and what comes again", async () => {
  await using moving: MovingRegion = new MovingRegion({
    ...{ size: SIZE, chunkSize: CHUNK },
    program: {
      suspend: async () => {
        await write(moving, 5);
        await write(moving, 30);
      },
    },
  });
  moving.store.bytes.set(pattern(SIZE, 1));
  moving.gate.hold(new RegExp(`^read ${16 * CHUNK}\\+`));
  await using target = await moving.leech({ pullWorkers: 1 });
  // The first half is here.
  await inTime(moving.gate.held(1));
  moving.gate.hold(/^read/);
  await inTime(target.core.finalize({ ...WAIT, maxTime: 0, strategy: "force" }));
  const { repeatedBytes, lastSetBytes, lastSetMs, lagBytes } = target.core.metrics;
  assertEquals([repeatedBytes, lastSetBytes, lastSetMs, lagBytes], [CHUNK, 2 * CHUNK, 0, 0]);
  await readBack(target.region, 0, CHUNK);
  assertEquals(target.core.metrics.faults.count, 0);
  const reads = [5, 30].map((chunk) => readBack(target.region, chunk * CHUNK, 10));
  await delay(TAKES.lastSet);
  moving.gate.open();
  await inTime(Promise.all(reads));
  const { count, p99Ms } = target.core.metrics.faults;
  assertEquals(count, 2);
  assert(p99Ms > TAKES.lastSet - SLACK_MS, `${p99Ms} ms`);
  await inTime(target.core.complete());
});
