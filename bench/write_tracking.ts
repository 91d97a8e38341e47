/**
 * Tracking the writes to a WebAssembly memory: what a write costs, and the collection of what was
 * written, against the same system calls in a bare loop.
 *
 * @module
 */
import { addressOf } from "../ffi/libc.ts";
import { pageSize } from "../ffi/mman.ts";
import { PAGE_IS, PagemapScanner, PM_SCAN } from "../ffi/pagemap.ts";
import { openUserfault, UFFD_FEATURE } from "../ffi/userfault_open.ts";
import { UFFD_REGISTER, Userfault } from "../ffi/userfaultfd.ts";
import { trackMemory } from "../mod.ts";
import { alternate, type Comparison, median } from "./statistics.ts";

const WASM_PAGE = 65_536;
const MIB = 1 << 20;
/** Memory whose pages are written one by one. */
const WRITTEN = 64 * MIB;
/** Passes over it for a write that costs next to nothing. */
const PASSES = 64;
/** Memory of which a hundredth is written. */
const COLLECTED = 1024 * MIB;
const DIRTY_SHARE = 100;
/** Collections a round, of which the median counts. */
const COLLECTIONS = 20;

/** Measures writes, first and later ones, and collections. */
export async function compareTracking(rounds: number): Promise<Comparison[]> {
  return [
    await compareFirstWrites(rounds),
    await compareLaterWrites(rounds),
    await compareCollections(rounds),
  ];
}

/** A memory that is in place, and telemap's tracker or the bare one. */
interface Tracked extends AsyncDisposable {
  readonly bytes: Uint8Array;
  /** Makes all clean; answers how many bytes were not. */
  collect(): Promise<number>;
}

async function tracked(size: number): Promise<Tracked> {
  const memory = filledMemory(size);
  const tracker = await trackMemory(memory);
  return {
    bytes: new Uint8Array(memory.buffer),
    collect: async () => (await tracker.dirty()).byteLength,
    [Symbol.asyncDispose]: () => tracker.close(),
  };
}

/** WP_ASYNC and PAGEMAP_SCAN, and nothing else. */
function bareTracked(size: number): Tracked {
  const memory = filledMemory(size), bytes = new Uint8Array(memory.buffer);
  const address = addressOf(bytes);
  const { fd } = openUserfault({ required: UFFD_FEATURE.WP_ASYNC | UFFD_FEATURE.WP_UNPOPULATED });
  const userfault = new Userfault(fd);
  userfault.register(address, size, UFFD_REGISTER.WP);
  userfault.writeProtect(address, size);
  const scanner = new PagemapScanner({
    flags: PM_SCAN.WP_MATCHING | PM_SCAN.CHECK_WPASYNC,
    all: PAGE_IS.WRITTEN,
    report: PAGE_IS.WRITTEN,
    capacity: size / pageSize(),
  });
  return {
    bytes,
    collect: () => {
      let sum = 0;
      const count = scanner.scan(address, address + size);
      for (let index = 0; index < count; index++) sum += scanner.end(index) - scanner.start(index);
      return Promise.resolve(sum);
    },
    [Symbol.asyncDispose]: () => {
      scanner[Symbol.dispose]();
      userfault[Symbol.dispose]();
      return Promise.resolve();
    },
  };
}

function filledMemory(size: number): WebAssembly.Memory {
  const pages = size / WASM_PAGE;
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  new Uint8Array(memory.buffer).fill(1);
  return memory;
}

async function compareFirstWrites(rounds: number): Promise<Comparison> {
  await using ours = await tracked(WRITTEN);
  await using bare = bareTracked(WRITTEN);
  const run = (memory: Tracked) => async () => {
    await memory.collect();
    return nanosecondsAWrite(memory.bytes, 1);
  };
  const figures = await alternate([
    { name: "telemap", run: run(ours) },
    { name: "bare WP_ASYNC", run: run(bare) },
  ], rounds);
  const title = "First write to a clean page (ns, limit 1.5 times the bare one)";
  return { title, figures, better: "lower", subject: "telemap" };
}

async function compareLaterWrites(rounds: number): Promise<Comparison> {
  await using ours = await tracked(WRITTEN);
  const untracked = new Uint8Array(filledMemory(WRITTEN).buffer);
  const run = (bytes: Uint8Array) => () => Promise.resolve(nanosecondsAWrite(bytes, PASSES));
  nanosecondsAWrite(ours.bytes, 1);
  const figures = await alternate([
    { name: "tracked", run: run(ours.bytes) },
    { name: "untracked", run: run(untracked) },
  ], rounds);
  const title = "Later writes, one a page (ns)";
  return { title, figures, better: "lower", subject: "tracked" };
}

async function compareCollections(rounds: number): Promise<Comparison> {
  await using ours = await tracked(COLLECTED);
  await using bare = bareTracked(COLLECTED);
  const run = (memory: Tracked) => async () => {
    await memory.collect();
    const times: number[] = [];
    for (let collection = 0; collection < COLLECTIONS; collection++) {
      const written = dirty(memory.bytes);
      const start = performance.now();
      const collected = await memory.collect();
      times.push(performance.now() - start);
      if (collected !== written) throw new Error(`${written} bytes written, ${collected} told`);
    }
    return median(times);
  };
  const figures = await alternate([
    { name: "telemap", run: run(ours) },
    { name: "bare PAGEMAP_SCAN", run: run(bare) },
  ], rounds);
  const title = "Collecting 1% dirty, scattered pages of 1 GiB (ms, limit 2)";
  return { title, figures, better: "lower", subject: "telemap" };
}

/** Writes to every page in turn, so many times; how long one write takes. */
function nanosecondsAWrite(bytes: Uint8Array, passes: number): number {
  const page = pageSize();
  const start = performance.now();
  for (let pass = 0; pass < passes; pass++) {
    for (let at = 0; at < bytes.length; at += page) bytes[at] = pass;
  }
  return (performance.now() - start) * 1e6 / (passes * (bytes.length / page));
}

/** Writes to a hundredth of the pages, none beside another; answers their bytes. */
function dirty(bytes: Uint8Array): number {
  const page = pageSize();
  let written = 0;
  for (let at = 0; at < bytes.length; at += DIRTY_SHARE * page) {
    bytes[at] = 2;
    written += page;
  }
  return written;
}
