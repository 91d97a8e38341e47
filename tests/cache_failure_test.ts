/** The cache stage where its remote or its own backend fails: nothing is taken for what it is not. */
import { assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../ffi/libc.ts";
import { ConnectionError } from "../lib/backend/errors.ts";
import { openMemory } from "../lib/backend/memory.ts";
import { CacheStage } from "../lib/chunk/cache.ts";
import { assertBytes, pattern, readBack } from "./backend_model.ts";
import { ScheduledBackend } from "./scheduled_backend.ts";

openLibc();

const SIZE = 256 << 10, CHUNK = 4096;

/** A region of which the next `failures` operations fail, before they are done or after it. */
function failing(content?: Uint8Array): { backend: ScheduledBackend; fail(count: number): void } {
  let left = 0;
  const fails = () => left > 0 && left-- > 0;
  const backend = new ScheduledBackend({ size: SIZE, step: () => Promise.resolve(), fails });
  if (content !== undefined) backend.bytes.set(content);
  return { backend, fail: (count) => void (left = count) };
}

Deno.test("what the remote did not answer is an error, and neither zeroes nor local", async () => {
  const expected = pattern(SIZE, 1), remote = failing(expected);
  await using cache = new CacheStage({
    ...{ remote: remote.backend, local: openMemory({ size: SIZE }), chunkSize: CHUNK },
    push: { interval: 0 },
  });
  // What the caller's buffer held before must not be taken for an answer either.
  const buffer = new Uint8Array(3 * CHUNK).fill(0xee);
  remote.fail(1);
  await assertRejects(async () => await cache.readAt(buffer, 100), ConnectionError);
  assertEquals(cache.region.localBytes, 0);
  assertBytes(await readBack(cache, 0, SIZE), expected, "Asked again");
});

Deno.test("what could not be put into the cache is not taken for local", async () => {
  const expected = pattern(SIZE, 2), local = failing();
  const remote = failing(expected).backend;
  await using cache = new CacheStage({
    ...{ remote, local: local.backend, chunkSize: CHUNK, push: { interval: 0 } },
  });
  local.fail(1);
  await assertRejects(async () => await cache.readAt(new Uint8Array(2 * CHUNK), 0));
  assertEquals(cache.region.localBytes, 0);
  assertBytes(await readBack(cache, 0, SIZE), expected, "Asked again");
});

Deno.test("a write that the cache's backend refused is not pushed, and can be repeated", async () => {
  const before = pattern(SIZE, 3), local = failing();
  const remote = failing(before).backend;
  await using cache = new CacheStage({
    ...{ remote, local: local.backend, chunkSize: CHUNK, push: { interval: 0 } },
  });
  await readBack(cache, 0, SIZE);
  local.fail(1);
  const bytes = new Uint8Array(CHUNK).fill(7);
  await assertRejects(async () => await cache.writeAt(bytes, 8 * CHUNK));
  await cache.writeAt(bytes, 8 * CHUNK);
  await cache.sync();
  const expected = before.slice();
  expected.set(bytes, 8 * CHUNK);
  assertBytes(remote.bytes, expected, "The remote");
});

Deno.test("whoever waits for many pulls is told when all fail at a time, and they go on", async () => {
  const expected = pattern(SIZE, 4), remote = failing(expected);
  remote.fail(Infinity);
  await using cache = new CacheStage({
    ...{ remote: remote.backend, local: openMemory({ size: SIZE }), chunkSize: CHUNK },
    push: { interval: 0 },
  });
  const puller = cache.pull({ workers: 8, retryPause: 1, log: () => {} });
  await assertRejects(() => puller.complete(), ConnectionError);
  remote.fail(0);
  await puller.complete();
  assertEquals(cache.region.localBytes, SIZE);
  assertBytes(await readBack(cache, 0, SIZE), expected, "All of it");
});
