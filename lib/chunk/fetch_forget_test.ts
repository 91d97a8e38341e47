import { openLibc } from "../../ffi/libc.ts";
import { assertEquals } from "@std/assert";
import { type Backend, checkRange } from "../backend/backend.ts";
import { openMemory } from "../backend/memory.ts";
import { CacheStage } from "./cache.ts";

openLibc();

const CHUNK = 4096, SIZE = 4 * CHUNK;

/** A remote whose reads wait until they are let go, with the content of that moment. */
class HeldRemote {
  readonly content = new Uint8Array(SIZE);
  readonly held: (() => void)[] = [];
  readonly backend: Backend;

  constructor() {
    this.backend = {
      ...{ size: SIZE, blockSize: 1, durable: true, readOnly: true },
      readAt: (buffer, offset) => {
        checkRange(SIZE, offset, buffer.length);
        const copy = this.content.slice(offset, offset + buffer.length);
        return new Promise((resolve) =>
          this.held.push(() => {
            buffer.set(copy);
            resolve();
          })
        );
      },
      writeAt: () => {},
      flush: () => {},
      close: () => {},
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  }
}

Deno.test("what is on its way is not taken when it is out of date", async () => {
  const remote = new HeldRemote();
  await using cache = new CacheStage({
    ...{ remote: remote.backend, local: openMemory({ size: SIZE }), chunkSize: CHUNK, owned: true },
  });
  remote.content.fill(1);
  const first = cache.fetcher.start(0, 4);
  remote.content.fill(2, CHUNK, 2 * CHUNK);
  await cache.fetcher.forget([{ from: 1, to: 2 }]);
  remote.held.shift()!();
  await first;
  const { states } = cache.region;
  assertEquals([0, 1, 2, 3].map((chunk) => states.local.has(chunk)), [true, false, true, true]);
  const buffer = new Uint8Array(SIZE);
  const reading = cache.readAt(buffer, 0);
  remote.held.shift()!();
  await reading;
  assertEquals(buffer, remote.content);
});

Deno.test("a chunk that was local is fetched again once it is out of date", async () => {
  const remote = new HeldRemote();
  await using cache = new CacheStage({
    ...{ remote: remote.backend, local: openMemory({ size: SIZE }), chunkSize: CHUNK, owned: true },
  });
  const fetching = cache.fetcher.start(0, 4);
  remote.held.shift()!();
  await fetching;
  remote.content.fill(7);
  await cache.fetcher.forget([{ from: 0, to: 4 }]);
  assertEquals(cache.region.localBytes, 0);
  const buffer = new Uint8Array(CHUNK);
  const reading = cache.readAt(buffer, 0);
  remote.held.shift()!();
  await reading;
  assertEquals(buffer, new Uint8Array(CHUNK).fill(7));
});

Deno.test("what is written to a cache that owns its region stays there, and is never pushed", async () => {
  let written = 0;
  const remote: Backend = {
    ...{ size: SIZE, blockSize: 1, durable: true, readOnly: true },
    readAt: (buffer) => void buffer.fill(0),
    writeAt: () => void written++,
    flush: () => void written++,
    close: () => {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  await using cache = new CacheStage({
    ...{ remote, local: openMemory({ size: SIZE }), chunkSize: CHUNK, owned: true },
    push: { interval: 1, dirtyLimit: 0.25 },
  });
  assertEquals(cache.readOnly, false);
  for (let at = 0; at < SIZE; at += CHUNK) await cache.writeAt(new Uint8Array(CHUNK).fill(3), at);
  await cache.flush();
  await cache.sync();
  assertEquals([written, cache.region.states.dirtyCount], [0, 4]);
});
