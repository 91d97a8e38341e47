/**
 * Copies that go on where they were, as their source or they themselves were started again: what is
 * right of them is known by digests, and only the rest is read again.
 */
import { assertEquals } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { digestOf } from "../../lib/chunk/digests.ts";
import { LeechedRegion } from "../../lib/migration/leeched_region.ts";
import type { FinalizeOptions } from "../../lib/migration/leecher_core.ts";
import { assertBytes, pattern, readBack } from "../backend_model.ts";
import { MovingRegion } from "../defects/moving_region.ts";
import { inTime } from "../in_time.ts";

openLibc();

const CHUNK = 64 << 10, COUNT = 80, SIZE = COUNT * CHUNK;
const GOAL: FinalizeOptions = {
  ...{ maxDowntime: 1000, maxTime: 60_000, offerMs: 10_000, confirm: "after", strategy: "wait" },
};

/** Every chunk once, in order. */
const ALL = Array.from({ length: COUNT }, (_, chunk) => chunk);

/** Which they are: one that was written before this side followed may be told of, and read, once more. */
function sorted(chunks: readonly number[]): number[] {
  return [...new Set(chunks)].sort((a, b) => a - b);
}

async function withCache(run: (cache: string, path: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "telemap-test-" });
  try {
    await run(`file:${directory}/copy`, `${directory}/copy`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("of a source that is started again, only what changed is read again", async () => {
  const expected = pattern(SIZE, 1);
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  moving.store.bytes.set(expected);
  await using target = await moving.leech();
  await inTime(target.core.copied());
  assertEquals(sorted(moving.fetched.splice(0)), ALL);
  await moving.die();
  // Nobody notices these writes. One is in what digests are asked for first, one behind that.
  const changed = [3, COUNT - 1];
  for (const chunk of changed) {
    expected.set(pattern(CHUNK, chunk), chunk * CHUNK);
    await moving.store.writeAt(pattern(CHUNK, chunk), chunk * CHUNK);
  }
  moving.restart();
  await inTime(target.core.finalize(GOAL));
  assertEquals([moving.asked.filter((type) => type === "track").length, moving.seeder.stage], [
    2,
    "given",
  ]);
  assertEquals(sorted(moving.fetched), changed);
  await inTime(target.core.complete());
  assertBytes(await readBack(target.region, 0, SIZE), expected, "The region");
});

Deno.test("what a source that was started again is written to is told of, beside what is compared", async () => {
  const expected = pattern(SIZE, 2);
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  moving.store.bytes.set(expected);
  await using target = await moving.leech();
  await inTime(target.core.copied());
  await moving.die();
  moving.restart();
  moving.fetched.length = 0;
  // Held once the digest of the first chunk was made, and told to the leecher with all the others.
  moving.gate.hold(/^read 65536\+/);
  const taking = inTime(target.core.finalize(GOAL));
  await inTime(moving.gate.held(1));
  expected.set(pattern(CHUNK, 3), 0);
  await moving.source.writeAt(pattern(CHUNK, 3), 0);
  moving.gate.open();
  await taking;
  assertEquals(moving.fetched, [0]);
  await inTime(target.core.complete());
  assertBytes(await readBack(target.region, 0, SIZE), expected, "The region");
});

/** How a chunk of a copy in a file comes to be one that has to be read again. */
const FLAWS: Record<string, (moving: MovingRegion, path: string) => Promise<void>> = {
  "of which nothing changed": () => Promise.resolve(),
  "of which a chunk was written at the source": async ({ source, store }) => {
    await source.writeAt(pattern(CHUNK, 4), 2 * CHUNK);
    assertEquals(store.bytes[2 * CHUNK], pattern(CHUNK, 4)[0]);
  },
  "of which a byte was changed on the disk": async (_, path) => {
    using file = await Deno.open(path, { read: true, write: true });
    await file.seek(2 * CHUNK + 5, Deno.SeekMode.Start);
    const byte = new Uint8Array(1);
    await file.read(byte);
    await file.seek(2 * CHUNK + 5, Deno.SeekMode.Start);
    await file.write(byte.map((value) => value ^ 1));
  },
};

for (const [what, bringAbout] of Object.entries(FLAWS)) {
  Deno.test(`a copy ${what} goes on where its leecher was closed`, async () => {
    await withCache(async (cache, path) => {
      await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
      moving.store.bytes.set(pattern(SIZE, 5));
      // The last request of the copy is never answered.
      const last = COUNT - 16;
      moving.gate.hold(new RegExp(`^read ${last * CHUNK}\\+`));
      {
        await using target = await moving.leech({ cache, pullWorkers: 1 });
        await inTime(moving.gate.held(1));
        assertEquals(target.core.metrics.localBytes, last * CHUNK);
        moving.fails = () => true;
        moving.gate.open();
      }
      moving.fails = () => false;
      moving.fetched.length = 0;
      await bringAbout(moving, path);
      await using target = await moving.leech({ cache });
      await inTime(target.core.finalize(GOAL));
      const missing = ALL.slice(last);
      const isSame = what === "of which nothing changed";
      assertEquals(sorted(moving.fetched), isSame ? missing : [2, ...missing]);
      await inTime(target.core.complete());
      assertBytes(await readBack(target.region, 0, SIZE), moving.store.bytes, "The region");
    });
  });
}

Deno.test("of what a copy has, what differs from the source is dropped, and nothing else", async () => {
  const SMALL = 4096, source = openMemory({ size: 4 * SMALL });
  source.writeAt(pattern(4 * SMALL, 6), 0);
  const digests = [0, 1, 2, 3].map((chunk) =>
    digestOf(source.memory.bytes.subarray(chunk * SMALL, (chunk + 1) * SMALL))
  );
  const local = openMemory({ size: 4 * SMALL });
  await using copy = new LeechedRegion({ remote: source, local, chunkSize: SMALL });
  const { states } = copy.region;
  const held = () => [0, 1, 2, 3].map((chunk) => states.local.has(chunk));
  await copy.bring([{ offset: 0, length: 3 * SMALL }], SMALL);
  local.writeAt(new Uint8Array([local.memory.bytes[SMALL]! ^ 1]), SMALL);
  assertEquals(await copy.adopt(0, digests), { equal: 2, different: 2, left: 0 });
  assertEquals(held(), [true, false, true, false]);
  assertEquals(copy.absentBytes, 2 * SMALL);
  assertBytes(await readBack(copy, 0, 4 * SMALL), source.memory.bytes, "The copy");
});
