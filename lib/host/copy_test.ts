import { assert, assertEquals, assertRejects } from "@std/assert";
import * as fc from "fast-check";
import { openLibc } from "../../ffi/libc.ts";
import type { Backend, Extent } from "../backend/backend.ts";
import { IntegrityError, ReadOnlyError, UsageError } from "../backend/errors.ts";
import { openMemory } from "../backend/memory.ts";
import { compareBackends } from "./compare.ts";
import { copyBackend, type CopyProgress } from "./copy.ts";
import { openCopyTarget } from "./copy_target.ts";
import { openBackend } from "./open_backend.ts";

openLibc();

const KIB = 1024;
const MIB = 1024 * 1024;

/** A region in memory that counts calls, and answers them a turn of the event loop later. */
class SlowRegion implements Backend {
  readonly blockSize: number;
  readonly durable = false;
  readonly readOnly = false;
  readonly size: number;
  readonly inner: Backend;
  inFlight = 0;
  mostInFlight = 0;
  readonly reads: [number, number][] = [];
  readonly writes: [number, number][] = [];

  constructor(inner: Backend, blockSize = 1) {
    this.inner = inner;
    this.size = inner.size;
    this.blockSize = blockSize;
  }

  async readAt(buffer: Uint8Array, offset: number): Promise<void> {
    this.reads.push([offset, buffer.length]);
    await this.#turn();
    await this.inner.readAt(buffer, offset);
  }

  async writeAt(buffer: Uint8Array, offset: number): Promise<void> {
    this.writes.push([offset, buffer.length]);
    await this.#turn();
    await this.inner.writeAt(buffer, offset);
  }

  async #turn(): Promise<void> {
    this.mostInFlight = Math.max(this.mostInFlight, ++this.inFlight);
    await new Promise((resolve) => setTimeout(resolve, 0));
    this.inFlight--;
  }

  extents(offset: number, length: number): Extent[] {
    return this.inner.extents!(offset, length) as Extent[];
  }

  async flush(): Promise<void> {
    await this.inner.flush();
  }

  async close(): Promise<void> {
    await this.inner.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function randomBytes(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 65536) {
    crypto.getRandomValues(bytes.subarray(at, at + 65536));
  }
  return bytes;
}

async function contentOf(backend: Backend): Promise<Uint8Array> {
  const bytes = new Uint8Array(backend.size);
  await backend.readAt(bytes, 0);
  return bytes;
}

Deno.test("copies any content over any other", async () => {
  const run = fc.record({
    at: fc.nat({ max: 63 }),
    blocks: fc.integer({ min: 1, max: 20 }),
    fill: fc.nat({ max: 255 }),
  });
  const content = fc.array(run, { maxLength: 8 });
  const seed = Date.now() & 0x7fffffff;
  console.log(`seed ${seed}`);
  await fc.assert(
    fc.asyncProperty(content, content, fc.nat({ max: 4095 }), async (inSource, inTarget, odd) => {
      const size = 4 * MIB + odd;
      await using source = openMemory({ size });
      await using target = openMemory({ size: size + odd });
      for (const [region, runs] of [[source, inSource], [target, inTarget]] as const) {
        for (const { at, blocks, fill } of runs) {
          const length = Math.min(blocks * 64 * KIB - odd, size - at * 64 * KIB);
          region.writeAt(new Uint8Array(length).fill(fill), at * 64 * KIB);
        }
      }
      const { written, zeroed } = await copyBackend(source, target, { chunkSize: 256 * KIB });
      assertEquals(written + zeroed, size);
      const copied = (await contentOf(target)).subarray(0, size);
      assertEquals(copied, await contentOf(source));
    }),
    { seed, numRuns: 50 },
  );
});

Deno.test("neither reads nor writes what is a hole", async () => {
  await using source = new SlowRegion(openMemory({ size: 64 * MIB }));
  await using target = new SlowRegion(openMemory({ size: 64 * MIB }));
  source.inner.writeAt(new Uint8Array(64 * KIB).fill(1), 32 * MIB);
  const result = await copyBackend(source, target, { verify: true });
  assertEquals(result, {
    size: 64 * MIB,
    written: 64 * KIB,
    zeroed: 64 * MIB - 64 * KIB,
    verified: true,
  });
  assertEquals(target.writes, [[32 * MIB, 64 * KIB]]);
  assertEquals(source.reads.every(([offset]) => offset === 32 * MIB), true);
});

Deno.test("makes holes of zeroes that the source holds as data", async () => {
  await using source = openMemory({ size: 4 * MIB });
  await using target = openMemory({ size: 4 * MIB });
  source.writeAt(new Uint8Array(4 * MIB), 0);
  target.writeAt(randomBytes(4 * MIB), 0);
  await copyBackend(source, target, { verify: true });
  assertEquals(target.extents(0, 4 * MIB), [
    { offset: 0, length: 4 * MIB, hole: true, zero: true },
  ]);
});

Deno.test("keeps as many chunks in flight as told, aligned as both sides need", async () => {
  const alignment = 3 * 64 * KIB;
  const size = 60 * alignment;
  await using source = new SlowRegion(openMemory({ size }), 64 * KIB);
  await using target = new SlowRegion(openMemory({ size }), alignment);
  source.inner.writeAt(randomBytes(100 * 64 * KIB), 64 * KIB);
  const progress: CopyProgress[] = [];
  await copyBackend(source, target, {
    chunkSize: 100_000,
    concurrency: 5,
    onProgress: (now) => progress.push(now),
  });
  assertEquals(target.mostInFlight <= 5 && source.mostInFlight === 5, true);
  const ranges = [...source.reads, ...target.writes].flat();
  assertEquals(ranges.filter((number) => number % alignment !== 0), []);
  assertEquals(progress.at(-1), { phase: "copy", done: size, total: size });
  assertEquals(await contentOf(target), await contentOf(source));
});

Deno.test("refuses a target that is too small or read-only", async () => {
  await using source = openMemory({ size: 2 * MIB });
  await using target = openMemory({ size: MIB });
  await assertRejects(() => copyBackend(source, target), UsageError, "2097152 bytes");
  const path = await Deno.makeTempFile({ prefix: "telemap-copy-" });
  try {
    await Deno.truncate(path, 2 * MIB);
    await using readOnly = await openBackend(`file:${path}?readonly`);
    await assertRejects(() => copyBackend(source, readOnly), UsageError, "read-only");
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("says where regions differ", async () => {
  await using source = openMemory({ size: 8 * MIB });
  await using target = openMemory({ size: 9 * MIB });
  source.writeAt(randomBytes(3 * MIB), 0);
  target.writeAt(randomBytes(MIB), 8 * MIB);
  await copyBackend(source, target);
  await compareBackends(source, target);
  target.writeAt(new Uint8Array([1]), 7 * MIB + 5);
  await assertRejects(
    () => compareBackends(source, target),
    IntegrityError,
    `differ at byte ${7 * MIB + 5}`,
  );
  await assertRejects(() => compareBackends(target, source), IntegrityError, "bytes and");
});

Deno.test("stops on a signal, and on the first error, with nothing in the works", async () => {
  await using source = new SlowRegion(openMemory({ size: 32 * MIB }));
  await using target = new SlowRegion(openMemory({ size: 32 * MIB }));
  source.inner.writeAt(randomBytes(32 * MIB), 0);
  const controller = new AbortController();
  const stopped = copyBackend(source, target, {
    signal: controller.signal,
    onProgress: ({ done }) => done >= 4 * MIB && controller.abort(new Error("enough")),
  });
  await assertRejects(() => stopped, Error, "enough");
  assertEquals(target.inFlight + source.inFlight, 0);
  assert(target.writes.length < 16);

  const { writes } = target;
  target.writeAt = (_, offset) => {
    writes.push([offset, MIB]);
    return writes.length === 20 ? Promise.reject(new ReadOnlyError()) : Promise.resolve();
  };
  await assertRejects(() => copyBackend(source, target), ReadOnlyError);
  assertEquals(source.inFlight, 0);
  assert(writes.length < 30);
});

Deno.test("the event loop turns while both sides answer at once", async () => {
  await using source = openMemory({ size: 128 * MIB });
  await using target = openMemory({ size: 128 * MIB });
  const chunk = randomBytes(MIB);
  for (let at = 0; at < source.size; at += MIB) source.writeAt(chunk, at);
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  await copyBackend(source, target);
  clearInterval(timer);
  assert(turns > 0);
});

Deno.test("makes the target with the size of the source where none is told", async () => {
  const directory = await Deno.makeTempDir({ prefix: "telemap-copy-" });
  const sizeOf = async (url: string) => {
    await using target = await openCopyTarget(url, 3 * MIB);
    return target.size;
  };
  try {
    assertEquals(await sizeOf("memory:"), 3 * MIB);
    assertEquals(await sizeOf("memory:4MiB"), 4 * MIB);
    assertEquals(await sizeOf(`file:${directory}/a`), 3 * MIB);
    assertEquals(await sizeOf(`file:${directory}/b?size=5MiB`), 5 * MIB);
    assertEquals(await sizeOf(`file:${directory}/b`), 5 * MIB);
    assertEquals(await sizeOf(`dir:${directory}/c?chunk=64KiB`), 3 * MIB);
    assertEquals(await sizeOf(`dir:${directory}/c`), 3 * MIB);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
