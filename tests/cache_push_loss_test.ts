/** Pushing to a remote that loses what it took before it was told to flush. */
import { assertEquals } from "@std/assert";
import { openLibc } from "../ffi/libc.ts";
import { openMemory } from "../lib/backend/memory.ts";
import { CacheStage } from "../lib/chunk/cache.ts";
import { assertBytes, pattern } from "./backend_model.ts";
import { Gate, settle } from "./gate.ts";
import { ScheduledBackend } from "./scheduled_backend.ts";

openLibc();

const CHUNK = 4096, SIZE = 8 * CHUNK;

Deno.test("a push of which the remote lost a part while the rest was on its way is done again", async () => {
  const gate = new Gate();
  let failures = 1, done = "";
  const remote = new ScheduledBackend({
    size: SIZE,
    step: async (name) => {
      await gate.step(name);
      done = name;
    },
    fails: () => done === "flush 0+0" && failures-- > 0,
  });
  remote.bytes.fill(1);
  remote.kept.fill(1);
  const cache = new CacheStage({
    ...{ remote, local: openMemory({ size: SIZE }), chunkSize: CHUNK },
    push: { interval: 0, retryPause: 1, workers: 2, flushBytes: 1 },
  });
  const expected = new Uint8Array(SIZE).fill(1);
  // The second of three goes in two parts: zeroes, and others.
  for (const chunk of [0, 3, 5]) {
    expected.set(pattern(CHUNK, chunk), chunk * CHUNK);
    await cache.writeAt(pattern(CHUNK, chunk), chunk * CHUNK);
  }
  expected.fill(0, 2 * CHUNK, 3 * CHUNK);
  await cache.zero!(2 * CHUNK, CHUNK);
  gate.hold(/zero|flush/);
  const sync = cache.sync();
  await settle();
  assertEquals(gate.waiting, ["zero 8192+4096", "flush 0+0"]);
  gate.pass(/flush/);
  await settle();
  gate.open();
  await sync;
  assertBytes(remote.kept, expected, "The remote");
  await cache.close();
});
