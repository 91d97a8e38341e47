import { assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { EventFd } from "../../ffi/epoll.ts";
import { addressOf, openLibc } from "../../ffi/libc.ts";
import { Mapping } from "../../ffi/mman.ts";
import type { Backend } from "../backend/backend.ts";
import { openMemory } from "../backend/memory.ts";
import type { RangeList } from "../backend/range_list.ts";
import { Reactor } from "../net/reactor.ts";
import { SlotPool } from "../net/slot_pool.ts";
import { DirtyPages } from "../tracking/dirty_pages.ts";
import { PagedRegion } from "./paged_region.ts";
import { PagePusher } from "./page_pusher.ts";
import { noStatistics } from "./statistics.ts";
import type { WriteTracker } from "../tracking/write_tracker.ts";

openLibc();

const PAGE = 4096;
const SIZE = 800 * PAGE;
const MIB = 1 << 20;

/** Tracks what a test says that it wrote. */
class ToldTracker implements WriteTracker {
  readonly method = "compare";
  readonly size = SIZE;
  readonly contentAddress: number;
  readonly #dirty = new DirtyPages(SIZE, PAGE);

  constructor(address: number) {
    this.contentAddress = address;
  }

  wrote(offset: number, length: number): void {
    this.#dirty.mark(offset, offset + length);
  }

  collect(written: RangeList, _from: number): number {
    this.#dirty.take(written, 0, SIZE);
    return SIZE;
  }

  restore(ranges: RangeList): void {
    this.#dirty.markAll(ranges);
  }

  [Symbol.dispose](): void {}
}

/** A backend that loses what was not flushed when the test says that it crashes. */
class CrashingBackend {
  readonly size: number;
  readonly blockSize = 1;
  readonly durable = true;
  readonly readOnly = false;
  readonly writesAtOnce: boolean;
  /** What survives a crash. */
  readonly stored: Uint8Array;
  /** Offsets and lengths of the writes. */
  readonly writes: [number, number][] = [];
  /** How many more writes, or flushes, fail. */
  failing = { writes: 0, flushes: 0 };
  #volatile: Uint8Array;

  constructor(size: number, atOnce: boolean) {
    this.size = size;
    this.writesAtOnce = atOnce;
    this.stored = new Uint8Array(size);
    this.#volatile = new Uint8Array(size);
  }

  crash(): void {
    this.#volatile = this.stored.slice();
  }

  readAt(buffer: Uint8Array, offset: number): void {
    buffer.set(this.#volatile.subarray(offset, offset + buffer.length));
  }

  writeAt(buffer: Uint8Array, offset: number): void | Promise<void> {
    if (!this.writesAtOnce) return Promise.resolve().then(() => this.#write(buffer, offset));
    this.#write(buffer, offset);
  }

  flush(): Promise<void> {
    if (this.failing.flushes-- > 0) return Promise.reject(new Error("the flush is in doubt"));
    this.stored.set(this.#volatile);
    return Promise.resolve();
  }

  close(): void {}

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  #write(buffer: Uint8Array, offset: number): void {
    if (this.failing.writes-- > 0) throw new Error("the disk is full");
    this.writes.push([offset, buffer.length]);
    this.#volatile.set(buffer, offset);
  }
}

/** Compares without printing millions of bytes. */
function assertSame(found: Uint8Array, expected: Uint8Array): void {
  assertEquals(found.findIndex((byte, index) => byte !== expected[index]), -1, "differs at");
}

/** Memory, who pushes it and where to, in a reactor that runs. */
class Stage<B extends Backend> implements AsyncDisposable {
  readonly memory = Mapping.map({ length: SIZE });
  readonly tracker = new ToldTracker(this.memory.address);
  readonly statistics = noStatistics();
  readonly region: PagedRegion;
  readonly pusher: PagePusher;
  readonly backend: B;
  readonly pool = new SlotPool();
  readonly #wake = new EventFd();
  readonly #reactor = new Reactor(this.#wake);
  readonly #running = this.#reactor.run();

  constructor(backend: B) {
    this.backend = backend;
    const { address } = this.memory;
    this.region = new PagedRegion({ address, size: SIZE, offset: 0, pageSize: PAGE }, PAGE, PAGE);
    const { pool, region, tracker, statistics } = this;
    this.pusher = new PagePusher(this.#reactor, pool, backend, region, tracker, statistics);
  }

  write(byte: number, offset: number, length: number): void {
    this.memory.bytes.fill(byte, offset, offset + length);
    this.tracker.wrote(offset, length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.pusher[Symbol.dispose]();
    this.#reactor.stop();
    await this.#running;
    this.#reactor[Symbol.dispose]();
    this.#wake[Symbol.dispose]();
    assertEquals(this.pool.lent, 0);
    this.pool[Symbol.dispose]();
    this.memory.unmap();
  }
}

for (const atOnce of [true, false]) {
  const how = atOnce ? "at once" : "later";

  Deno.test(`PagePusher writes dirty pages in pieces, to the backend's end, ${how}`, async () => {
    const end = SIZE - PAGE - 1000;
    await using stage = new Stage(new CrashingBackend(end, atOnce));
    const { backend, pusher, statistics, memory } = stage;
    stage.write(1, 2 * PAGE + 5, 10);
    stage.write(2, 10 * PAGE, 2 * MIB + PAGE);
    stage.write(3, end - 1, 1001);
    await pusher.push();
    assertEquals(backend.writes.sort(([one], [other]) => one - other), [
      [2 * PAGE, PAGE],
      [10 * PAGE, MIB],
      [10 * PAGE + MIB, MIB],
      [10 * PAGE + 2 * MIB, PAGE],
      [SIZE - 2 * PAGE, PAGE - 1000],
    ]);
    assertSame(backend.stored, memory.bytes);
    assertEquals(statistics.pushedBytes, 2 * MIB + 3 * PAGE - 1000);
    await pusher.push();
    assertEquals(backend.writes.length, 5);
  });

  Deno.test(`PagePusher writes again what the backend refused, ${how}`, async () => {
    await using stage = new Stage(new CrashingBackend(SIZE, atOnce));
    const { backend, pusher, memory } = stage;
    stage.write(1, 0, 3 * PAGE);
    stage.write(2, 100 * PAGE, 2 * MIB);
    backend.failing.writes = 1;
    await assertRejects(() => pusher.push(), Error, "the disk is full");
    await pusher.push();
    assertSame(backend.stored, memory.bytes);
  });

  Deno.test(`PagePusher writes again what a failed flush may have lost, ${how}`, async () => {
    await using stage = new Stage(new CrashingBackend(SIZE, atOnce));
    const { backend, pusher, memory } = stage;
    stage.write(1, 0, PAGE);
    await pusher.push();
    const written = backend.writes.length;
    stage.write(2, 5 * PAGE, 2 * PAGE);
    backend.failing.flushes = 1;
    await assertRejects(() => pusher.push(), Error, "the flush is in doubt");
    backend.crash();
    stage.write(3, 200 * PAGE, 1);
    await pusher.push();
    assertSame(backend.stored, memory.bytes);
    assertEquals(backend.writes.slice(written + 1), [[5 * PAGE, 2 * PAGE], [200 * PAGE, PAGE]]);
  });

  Deno.test(`PagePusher does so across pushes that failed before their flush, ${how}`, async () => {
    await using stage = new Stage(new CrashingBackend(SIZE, atOnce));
    const { backend, pusher, memory } = stage;
    stage.write(1, 0, 3 * MIB / 2);
    stage.write(2, 500 * PAGE, PAGE);
    backend.failing.writes = 1;
    await assertRejects(() => pusher.push(), Error, "the disk is full");
    backend.crash();
    backend.failing.flushes = 1;
    await assertRejects(() => pusher.push(), Error, "the flush is in doubt");
    await pusher.push();
    assertSame(backend.stored, memory.bytes);
  });
}

/** One whose writes are over at once for now only, and that tells where their content lies. */
class ChangingBackend extends CrashingBackend {
  writesNow = true;
  readonly addresses: number[] = [];

  constructor() {
    super(SIZE, false);
  }

  override writeAt(buffer: Uint8Array<ArrayBuffer>, offset: number): void | Promise<void> {
    this.addresses.push(addressOf(buffer));
    return super.writeAt(buffer, offset);
  }
}

Deno.test("PagePusher copies nothing for a write that is over at once", async () => {
  await using stage = new Stage(new ChangingBackend());
  const { backend, pusher, memory } = stage;
  stage.write(1, PAGE, PAGE);
  await pusher.push();
  assertEquals(backend.addresses, [memory.address + PAGE]);
  backend.writesNow = false;
  stage.write(2, PAGE, PAGE);
  await pusher.push();
  assertNotEquals(backend.addresses[1], memory.address + PAGE);
  assertSame(backend.stored, memory.bytes);
});

Deno.test("PagePusher never reads pages that are poisoned", async () => {
  await using stage = new Stage(openMemory({ size: SIZE }));
  stage.write(1, 0, 10 * PAGE);
  for (const page of [0, 4, 5, 9]) stage.region.poison(page);
  await stage.pusher.push();
  const { bytes } = stage.backend.memory;
  const found = Array.from({ length: 11 }, (_, page) => bytes[page * PAGE]);
  assertEquals(found, [0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0]);
});
