/**
 * The `userfault` device: what a slice shows, from every kind of backend, to one thread and to
 * several, and what its options do.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { addressOf, openLibc } from "../../ffi/libc.ts";
import { probeUserfault } from "../../ffi/userfault_open.ts";
import { MAP, Mapping } from "../../ffi/mman.ts";
import { probeTracking } from "../../lib/tracking/tracking_probe.ts";
import {
  type DirectMountOptions,
  type Mount,
  mountDirect,
  openBackend,
  Pattern,
  UsageError,
} from "../../mod.ts";
import { requires, requiresAll, requiresThat, withReason } from "../requires.ts";
import { readOnThread } from "../touch.ts";
import { temporaryDirectory } from "./command.ts";
import { ScriptedBackend } from "./scripted_module.ts";
import { startServer } from "./served_region.ts";
import type { ReadOrder } from "./slice_reader_worker.ts";

openLibc();

const MIB = 1 << 20;
const PAGE = 4096;
/** No multiple of any page size. */
const SIZE = 5 * MIB + 1234;
const SEED = 3;
const READER = new URL("./slice_reader_worker.ts", import.meta.url);

const probe = probeUserfault();
const needs = requiresThat(probe.features !== 0, probe.ways.at(-1)?.reason ?? "");

function test(name: string, fn: () => Promise<void>, further = needs): void {
  const all = requiresAll(needs, further);
  Deno.test({ name: withReason(name, all), ignore: all.ignore, fn });
}

type Memory = NonNullable<DirectMountOptions["memory"]>;

function mountSlice(
  backend: DirectMountOptions["backend"],
  memory: Memory = {},
  readOnly = false,
): Promise<Mount> {
  return mountDirect({ backend, as: "slice", device: "userfault", memory, readOnly });
}

function patternOf(size: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size);
  new Pattern(SEED).fill(bytes, 0);
  return bytes;
}

function assertPattern(bytes: Uint8Array, seed = SEED): void {
  assertEquals(new Pattern(seed).findDifference(bytes, 0), -1, "the first byte that is wrong");
}

interface Region extends AsyncDisposable {
  backend: DirectMountOptions["backend"];
  /** Another way to the same bytes, where there is one. */
  again: string | undefined;
}

/** Makes a region that shows the pattern, in a directory. */
type Make = (directory: string) => Promise<Region>;

const NOTHING = { [Symbol.asyncDispose]: () => Promise.resolve() };

async function fill(url: string): Promise<Region> {
  await using backend = await openBackend(url);
  await backend.writeAt(patternOf(SIZE), 0);
  await backend.flush();
  return { backend: url, again: url, ...NOTHING };
}

const REGIONS: Record<string, Make> = {
  "file:": (path) => fill(`file:${path}/region?size=${SIZE}`),
  "dir:": (path) => fill(`dir:${path}/region?size=${SIZE}&chunk=1MiB`),
  "a module": () => {
    const { source } = new ScriptedBackend(SIZE, { seed: SEED });
    return Promise.resolve({ backend: source, again: undefined, ...NOTHING });
  },
  "telemap://": async (path) => {
    const { again } = await fill(`file:${path}/region?size=${SIZE}`);
    const { process, url } = await startServer(again!);
    return {
      backend: url,
      again: url,
      [Symbol.asyncDispose]: () => process[Symbol.asyncDispose](),
    };
  },
};

for (const [name, make] of Object.entries(REGIONS)) {
  test(`a slice of ${name} shows its bytes, and sync brings back what was written`, async () => {
    using directory = temporaryDirectory();
    await using region = await make(directory.path);
    const expected = patternOf(SIZE);
    {
      await using mount = await mountSlice(region.backend);
      assertEquals([mount.device, mount.size, mount.bytes.length], ["userfault", SIZE, SIZE]);
      assertPattern(mount.bytes);
      for (const at of [0, 70_000, 3 * MIB, SIZE - 1]) {
        expected[at]! ^= 255;
        mount.bytes[at]! ^= 255;
      }
      await mount.sync();
      assertEquals((await mount.statistics()).pushedBytes, 3 * PAGE + SIZE % PAGE);
      await mount.sync();
      assertEquals((await mount.statistics()).pushedBytes, 3 * PAGE + SIZE % PAGE);
    }
    if (region.again === undefined) return;
    await using backend = await openBackend(region.again);
    const found = new Uint8Array(SIZE);
    await backend.readAt(found, 0);
    assertEquals(found.findIndex((byte, index) => byte !== expected[index]), -1);
  });
}

for (const { method: tracking, available, reason } of probeTracking()) {
  const further = requiresThat(available, reason ?? "");
  test(`each write is noticed by ${tracking}, of pages that come from anywhere`, async () => {
    using directory = temporaryDirectory();
    const url = (await fill(`file:${directory.path}/region?size=${SIZE}`)).again!;
    {
      // A hole, whose pages are zeroes without memory.
      await using backend = await openBackend(url);
      await backend.zero!(MIB, MIB);
    }
    await using mount = await mountSlice(url, { tracking });
    const expected = patternOf(SIZE).fill(0, MIB, 2 * MIB);
    // Read before it is written, or not; in the hole, or not; the last page, again and again.
    const places = [0, MIB, MIB + 10 * PAGE, 3 * MIB, SIZE - 1];
    for (const at of [0, MIB]) assertEquals(mount.bytes[at], expected[at]);
    for (let round = 1; round <= 3; round++) {
      const { pushedBytes } = await mount.statistics();
      for (const at of places) expected[at] = mount.bytes[at] = round;
      await mount.sync();
      const pushed = (await mount.statistics()).pushedBytes - pushedBytes;
      assertEquals(pushed, 4 * PAGE + SIZE % PAGE, `round ${round}`);
      const found = await Deno.readFile(`${directory.path}/region`);
      assertEquals(found.findIndex((byte, index) => byte !== expected[index]), -1);
    }
    const { writeFaults } = await mount.statistics();
    assertEquals(writeFaults > 0, tracking === "wp-faults", `${writeFaults} write faults`);
  }, further);
}

test("a slice of memory: is zeroes until it is written, before any byte was read", async () => {
  await using mount = await mountSlice(`memory:${SIZE}`);
  mount.bytes[SIZE - 1] = 7;
  mount.bytes.fill(9, MIB, MIB + 10_000);
  await mount.sync();
  assertEquals((await mount.statistics()).pushedBytes, 3 * PAGE + SIZE % PAGE);
  const expected = new Uint8Array(SIZE).fill(9, MIB, MIB + 10_000);
  expected[SIZE - 1] = 7;
  assertEquals(mount.bytes.findIndex((byte, index) => byte !== expected[index]), -1);
  const { copiedPages, zeroPages } = await mount.statistics();
  assert(zeroPages > copiedPages, `${copiedPages} copied, ${zeroPages} zero pages`);
});

test("what is closed is written back, and the slice is empty then", async () => {
  using directory = temporaryDirectory();
  const path = `${directory.path}/region`;
  const mount = await mountSlice(`file:${path}?size=${SIZE}`);
  const { bytes } = mount;
  bytes[SIZE - 1] = 42;
  await mount.close();
  assertEquals([bytes.length, mount.bytes.length], [0, 0]);
  await mount.close();
  assertEquals((await Deno.readFile(path)).at(-1), 42);
});

test("regions of a byte, of a page, and of a byte more are whole", async () => {
  for (const size of [1, PAGE, PAGE + 1]) {
    await using mount = await mountSlice(`pattern:${size}?seed=${SEED}`);
    assertEquals([mount.bytes.length, mount.readOnly], [size, true]);
    assertPattern(mount.bytes);
  }
});

test("several handlers page in their parts of one slice, and push what was written there", async () => {
  using directory = temporaryDirectory();
  const path = `${directory.path}/region`;
  const content = new Uint8Array(MIB + 777);
  for (let at = 0; at < content.length; at += 512) content[at] = at / 512 % 251 + 1;
  await Deno.writeFile(path, content);
  const options = { backend: `file:${path}`, device: "userfault", as: "slice" } as const;
  const mount = await mountDirect({ ...options, memory: { handlers: 3 } });
  assertEquals(mount.bytes, content);
  for (const at of [0, MIB / 2, MIB + 776]) mount.bytes[at] = content[at] = 255;
  await mount.sync();
  assertEquals(await Deno.readFile(path), content);
  await mount.close();
  for (const handlers of [0, 1.5, 65]) {
    await assertRejects(() => mountDirect({ ...options, memory: { handlers } }), UsageError);
  }
});

test("what may only be read is not tracked, and written back never", async () => {
  using directory = temporaryDirectory();
  const url = (await fill(`file:${directory.path}/region?size=${SIZE}`)).again!;
  for (const [backend, readOnly] of [[`${url}&readonly`, false], [url, true]] as const) {
    await using mount = await mountSlice(backend, {}, readOnly);
    assertEquals(mount.readOnly, true);
    assertPattern(mount.bytes);
    await mount.sync();
    assertEquals((await mount.statistics()).pushedBytes, 0);
  }
});

test("the first fault brings in faultAround bytes, around what was touched", async () => {
  for (const faultAround of [PAGE, 3 * PAGE, 65536, MIB, 16 * MIB]) {
    const backend = new ScriptedBackend(40 * MIB, { seed: SEED });
    await using mount = await mountSlice(backend.source, { faultAround });
    const at = 20 * MIB + 5 * PAGE + 7;
    const expected = new Uint8Array(1);
    new Pattern(SEED).fill(expected, at);
    assertEquals(mount.bytes[at], expected[0]);
    const { faults, copiedPages, readBytes } = await mount.statistics();
    assertEquals({ faults, readBytes, copiedPages }, {
      faults: 1,
      readBytes: faultAround,
      copiedPages: faultAround / PAGE,
    });
    const [{ offset, length }] = backend.reads as [{ offset: number; length: number }];
    assert(offset <= at && at < offset + length && length === faultAround);
  }
});

test("faults in order bring in ever more", async () => {
  await using mount = await mountSlice(`pattern:${32 * MIB}?seed=${SEED}`);
  assertPattern(mount.bytes);
  const { faults, readBytes } = await mount.statistics();
  assert(faults < 100, `${faults} faults`);
  assertEquals(readBytes, 32 * MIB);
});

test("scattered faults bring in ever less", async () => {
  const size = 2 ** 30;
  await using mount = await mountSlice(`pattern:${size}?seed=${SEED}`);
  for (let touch = 1; touch <= 500; touch++) {
    void mount.bytes[touch * 0x9e3779b1 % size];
  }
  const { faults, readBytes } = await mount.statistics();
  assert(faults > 450 && readBytes < 2 * faults * PAGE, `${readBytes} bytes for ${faults} faults`);
});

const WRONG: [string, Memory][] = [
  ...[0, -PAGE, 1000, PAGE + 1, 6 * 1024, 4096.5, 16 * MIB + PAGE, NaN, Infinity].map(
    (faultAround): [string, Memory] => [`faultAround ${faultAround}`, { faultAround }],
  ),
  ...[0, -1, NaN, Infinity].map((lossMs): [string, Memory] => [`lossMs ${lossMs}`, { lossMs }]),
];

for (const [what, memory] of WRONG) {
  test(`${what} is refused`, async () => {
    await assertRejects(() => mountSlice("memory:1MiB", memory), UsageError);
  });
}

test("a path, a file and a place are refused", async () => {
  using directory = temporaryDirectory();
  const device = "userfault" as const, backend = "memory:1MiB";
  for (const as of ["path", "file"] as const) {
    const asked = () => mountDirect({ backend, device, as });
    await assertRejects(asked, UsageError, "the userfault device makes slices");
  }
  const at = () => mountDirect({ backend, device, as: "slice", at: directory.path });
  await assertRejects(at, UsageError, "Cannot show memory at a path");
  await using mount = await mountSlice(backend);
  await assertRejects(() => Promise.resolve().then(() => mount.path), UsageError);
});

test("a slice larger than memory takes no more than what is touched", async () => {
  const size = 4 * 2 ** 40;
  const before = Deno.memoryUsage().rss;
  await using mount = await mountSlice(`pattern:${size}?seed=${SEED}`);
  for (const at of [0, size / 2 + 12345, size - 1]) {
    const expected = new Uint8Array(1);
    new Pattern(SEED).fill(expected, at);
    assertEquals(mount.bytes[at], expected[0]);
  }
  const grown = Deno.memoryUsage().rss - before;
  assert(grown < 256 * MIB, `${grown} bytes more`);
});

test("threads that touch a slice at once all see its bytes, while garbage is collected", async () => {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  console.log(`seed ${seed}`);
  const backend = new ScriptedBackend(8 * MIB + 99, { seed: SEED });
  for (const [source, memory] of [[backend.source, {}], ["pattern", { prefetch: true }]] as const) {
    const from = source === "pattern" ? `pattern:${8 * MIB + 99}?seed=${SEED}` : source;
    await using mount = await mountSlice(from, memory);
    const address = addressOf(mount.bytes), { length } = mount.bytes;
    const answers = Array.from({ length: 4 }, (_, index) => {
      return readInWorker({ address, length, pattern: SEED, seed: (seed + index * 7919) >>> 0 });
    });
    // This thread touches it too, and makes garbage.
    assertPattern(mount.bytes.slice());
    assertEquals(await Promise.all(answers), [-1, -1, -1, -1]);
  }
});

async function readInWorker(order: ReadOrder): Promise<number> {
  const worker = new Worker(READER, { type: "module" });
  try {
    worker.postMessage(order);
    return await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => reject(new Error(event.message));
    });
  } finally {
    worker.terminate();
  }
}

for (const atOnce of [false, true]) {
  const how = atOnce ? "at once" : "later";
  test(`prefetch brings all in, by a backend that answers ${how}`, async () => {
    const backend = new ScriptedBackend(SIZE, { seed: SEED, atOnce });
    await using mount = await mountSlice(backend.source, { prefetch: true });
    const pages = Math.ceil(SIZE / PAGE);
    while ((await mount.statistics()).copiedPages < pages);
    assertPattern(mount.bytes);
    const { faults, readBytes, prefetchedBytes } = await mount.statistics();
    assertEquals({ faults, readBytes, prefetchedBytes }, {
      faults: 0,
      readBytes: pages * PAGE,
      prefetchedBytes: pages * PAGE,
    });
  });
}

test("a fault is answered before what is prefetched, of pages under way too", async () => {
  const backend = new ScriptedBackend(64 * MIB, { seed: SEED });
  backend.hold(MIB);
  const mount = await mountSlice(backend.source, { prefetch: true });
  await using _mount = mount;
  await backend.holding(8);
  const address = addressOf(mount.bytes);
  // The first lies in a piece that is under way, the second in one that is not.
  for (const at of [MIB + 5 * PAGE, 40 * MIB]) {
    const expected = new Uint8Array(16);
    new Pattern(SEED).fill(expected, at);
    assertEquals(await readOnThread(address + at, 16), expected);
  }
  const sizes = backend.reads.slice(8).map(({ length }) => length);
  assertEquals(sizes, [PAGE, 65536]);
  backend.release();
  while ((await mount.statistics()).copiedPages < 64 * MIB / PAGE);
  assertPattern(mount.bytes);
});

const HUGE = 2 * MIB;
const HUGE_PATH = "/proc/sys/vm/nr_hugepages";

/** Reserves huge pages until it is disposed of; `count` more than there are. */
function reserveHugePages(count: number): Disposable {
  const before = Number(Deno.readTextFileSync(HUGE_PATH));
  Deno.writeTextFileSync(HUGE_PATH, `${before + count}`);
  return { [Symbol.dispose]: () => Deno.writeTextFileSync(HUGE_PATH, `${before}`) };
}

function hasHugePages(): boolean {
  try {
    using _pages = reserveHugePages(4);
    Mapping.map({
      length: 4 * HUGE,
      flags: MAP.PRIVATE | MAP.ANONYMOUS | MAP.HUGETLB | MAP.HUGE_2MB,
    }).unmap();
    return true;
  } catch {
    return false;
  }
}

const huge = requiresAll(
  requires("root", HUGE_PATH),
  requiresThat(Deno.uid() === 0 && hasHugePages(), "no huge pages can be reserved"),
);

test("a slice of huge pages shows its bytes, and brings back what was written", async () => {
  using _pages = reserveHugePages(8);
  using directory = temporaryDirectory();
  const url = (await fill(`file:${directory.path}/region?size=${SIZE}`)).again!;
  for (const memory of [{}, { prefetch: true }, { faultAround: 2 * HUGE }]) {
    const mount = await mountSlice(url, { ...memory, hugePages: true });
    assertPattern(mount.bytes);
    mount.bytes[SIZE - 1]! ^= 255;
    await mount.sync();
    assertEquals((await mount.statistics()).pushedBytes, SIZE % HUGE);
    mount.bytes[SIZE - 1]! ^= 255;
    await mount.close();
  }
  assertPattern(await Deno.readFile(`${directory.path}/region`));
  await assertRejects(() => mountSlice(url, { hugePages: true, faultAround: 65536 }), UsageError);
}, huge);

test("huge pages that are not reserved are refused, with what to do", async () => {
  const free = Number(/HugePages_Free:\s+(\d+)/.exec(Deno.readTextFileSync("/proc/meminfo"))![1]);
  const size = (free + 64) * HUGE;
  const asked = () => mountSlice(`pattern:${size}`, { hugePages: true });
  await assertRejects(asked, Error, "vm.nr_hugepages");
}, requires("/proc/meminfo"));
