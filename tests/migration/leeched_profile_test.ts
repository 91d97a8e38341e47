/**
 * What a program read first after one migration is copied first by the next one.
 */
import { assertEquals } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { readBack } from "../backend_model.ts";
import { inTime } from "../in_time.ts";
import { MovingRegion } from "../defects/moving_region.ts";

openLibc();

const CHUNK = 65_536, SIZE = 256 * CHUNK;
const GOAL = {
  maxDowntime: 1000,
  maxTime: 60_000,
  offerMs: 10_000,
  confirm: "after",
  strategy: "wait",
} as const;

/** Moves a region, reads these chunks at its destination, and answers what its source was read for. */
async function move(profile: string, chunks: readonly number[]): Promise<string[]> {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  moving.store.bytes.fill(1);
  await using target = await moving.leech({ profile, pullWorkers: 1 });
  await inTime(target.core.finalize(GOAL));
  for (const chunk of chunks) await readBack(target.region, chunk * CHUNK, 10);
  return moving.gate.log.filter((step) => step.startsWith("read"));
}

Deno.test("a leecher copies first what its profile tells of, and records what is read", async () => {
  const profile = await Deno.makeTempFile({ prefix: "telemap-test-" });
  await Deno.remove(profile);
  try {
    const [first] = await move(profile, [200, 77, 78]);
    assertEquals(first, `read 0+${16 * CHUNK}`);
    const reads = await move(profile, []);
    assertEquals(reads.slice(0, 2), [
      `read ${200 * CHUNK}+${CHUNK}`,
      `read ${77 * CHUNK}+${2 * CHUNK}`,
    ]);
    assertEquals((await move(profile, []))[0], reads[0], "Reading nothing changes nothing");
  } finally {
    await Deno.remove(profile).catch(() => {});
  }
});
