import { assert, assertEquals, assertThrows } from "@std/assert";
import { SystemError } from "../../ffi/errno.ts";
import { openLibc } from "../../ffi/libc.ts";
import { MADV, Mapping, pageSize } from "../../ffi/mman.ts";
import { openUserfault, UFFD_FEATURE } from "../../ffi/userfault_open.ts";
import { UFFD_FILL, UFFD_REGISTER, Userfault } from "../../ffi/userfaultfd.ts";
import { requiresThat, withReason } from "../../tests/requires.ts";
import { RangeList } from "../backend/range_list.ts";
import { AsyncTracker } from "./async_tracker.ts";
import { probeTracking } from "./tracking_probe.ts";

openLibc();

const PAGE = pageSize();
const probe = probeTracking().find(({ method }) => method === "async-wp")!;
const needs = requiresThat(probe.available, probe.reason ?? "");

function trackerTest(name: string, fn: () => void): void {
  Deno.test({ name: withReason(name, needs), ignore: needs.ignore, fn });
}

/** Memory with a tracker. */
class Tracked implements Disposable {
  readonly memory: Mapping;
  readonly uffd: Userfault;
  readonly tracker: AsyncTracker;

  constructor(pages: number, { pagedIn }: { pagedIn: boolean }) {
    this.memory = Mapping.map({ length: pages * PAGE });
    const required = UFFD_FEATURE.WP_ASYNC | UFFD_FEATURE.POISON;
    this.uffd = new Userfault(openUserfault({ required }).fd);
    const { address, length: size } = this.memory;
    const missing = pagedIn ? UFFD_REGISTER.MISSING : 0;
    this.uffd.register(address, size, UFFD_REGISTER.WP | missing);
    if (!pagedIn) this.uffd.writeProtect(address, size);
    this.tracker = new AsyncTracker({ address, size, pageSize: PAGE }, { pagedIn });
  }

  address(page: number): number {
    return this.memory.address + page * PAGE;
  }

  write(...pages: number[]): void {
    for (const page of pages) this.memory.bytes[page * PAGE + 7]! += 1;
  }

  /** What was written, as `[first page, page behind the last]`. */
  collect(): [number, number][] {
    const written = new RangeList();
    for (let at = 0; at < this.tracker.size;) at = this.tracker.collect(written, at);
    return inPages(written);
  }

  [Symbol.dispose](): void {
    this.tracker[Symbol.dispose]();
    this.uffd[Symbol.dispose]();
    this.memory.unmap();
  }
}

function inPages(ranges: RangeList): [number, number][] {
  return [...ranges].map(({ offset, length }) => [offset / PAGE, (offset + length) / PAGE]);
}

trackerTest("pages count as written once for all writes before they are collected", () => {
  using tracked = new Tracked(64, { pagedIn: false });
  assertEquals(tracked.collect(), []);
  tracked.write(5, 6, 6, 63);
  assertEquals(tracked.memory.bytes[9 * PAGE], 0, "reading is no writing");
  assertEquals(tracked.collect(), [[5, 7], [63, 64]]);
  assertEquals(tracked.collect(), []);
  tracked.write(6);
  assertEquals(tracked.collect(), [[6, 7]]);
});

trackerTest("pages that were dropped count as written: they are zeroes now", () => {
  using tracked = new Tracked(2048, { pagedIn: false });
  tracked.memory.bytes.fill(1);
  tracked.collect();
  tracked.memory.advise(MADV.DONTNEED, 3 * PAGE, PAGE);
  assertEquals(tracked.collect(), [[3, 4]]);
  // So many that the kernel gives the page tables back as well.
  tracked.memory.advise(MADV.DONTNEED);
  assertEquals(tracked.collect(), [[0, 2048]]);
  tracked.write(1000);
  assertEquals(tracked.collect(), [[1000, 1001]]);
});

trackerTest("ranges that are restored are collected again, among what was written since", () => {
  using tracked = new Tracked(64, { pagedIn: false });
  tracked.write(1, 2, 3, 10);
  const ranges = new RangeList();
  tracked.tracker.collect(ranges, 0);
  tracked.write(2, 4, 30);
  tracked.tracker.restore(ranges);
  assertEquals(tracked.collect(), [[1, 5], [10, 11], [30, 31]]);
  assertEquals(tracked.collect(), []);
});

trackerTest("memory that is paged in counts as written where it was written, not filled", () => {
  using tracked = new Tracked(64, { pagedIn: true });
  using source = Mapping.map({ length: 8 * PAGE });
  source.bytes.fill(1);
  const { uffd } = tracked;
  assertEquals(uffd.copy(tracked.address(0), source.address, 8 * PAGE, UFFD_FILL.WP), 8 * PAGE);
  assertEquals(uffd.zeroPage(tracked.address(8), 8 * PAGE), 8 * PAGE);
  assertEquals(tracked.collect(), []);
  tracked.write(2, 9);
  assertEquals(tracked.memory.bytes[10 * PAGE], 0);
  assertEquals(tracked.collect(), [[2, 3], [9, 10]]);
  assertEquals(tracked.collect(), []);
  tracked.write(9);
  assertEquals(tracked.collect(), [[9, 10]]);
});

trackerTest("memory that is paged in may be filled unprotected, which counts as written", () => {
  using tracked = new Tracked(8, { pagedIn: true });
  using source = Mapping.map({ length: 2 * PAGE });
  assertEquals(tracked.uffd.copy(tracked.address(1), source.address, 2 * PAGE), 2 * PAGE);
  assertEquals(tracked.collect(), [[1, 3]]);
  assertEquals(tracked.collect(), []);
});

trackerTest(
  "pages that are missing again can be filled again, clean, also as the zero page",
  () => {
    using tracked = new Tracked(64, { pagedIn: true });
    using source = Mapping.map({ length: 2 * PAGE });
    const { uffd } = tracked;
    uffd.copy(tracked.address(0), source.address, 2 * PAGE, UFFD_FILL.WP);
    tracked.write(0, 1);
    tracked.memory.advise(MADV.DONTNEED, 0, 2 * PAGE);
    assertEquals(tracked.collect(), []);
    assertEquals(uffd.copy(tracked.address(0), source.address, PAGE, UFFD_FILL.WP), PAGE);
    assertEquals(uffd.zeroPage(tracked.address(1), PAGE), PAGE);
    assertEquals(tracked.collect(), []);
    tracked.write(0, 1);
    assertEquals(tracked.collect(), [[0, 2]]);
  },
);

trackerTest("a page that was poisoned counts as written once", () => {
  using tracked = new Tracked(8, { pagedIn: true });
  assertEquals(tracked.uffd.poison(tracked.address(3), PAGE), PAGE);
  assertEquals(tracked.collect(), [[3, 4]]);
  assertEquals(tracked.collect(), []);
});

trackerTest(
  "a step ends after so many pages, or so much memory, and the next goes on there",
  () => {
    const pages = (600 << 20) / PAGE;
    using tracked = new Tracked(pages, { pagedIn: false });
    tracked.memory.bytes.fill(1, 0, 20_000 * PAGE);
    tracked.write(pages - 1);
    const written = new RangeList(), steps: number[] = [];
    for (let at = 0; at < tracked.tracker.size; at = steps.at(-1)!) {
      steps.push(tracked.tracker.collect(written, at));
    }
    const [first, second] = [16384 * PAGE, 16384 * PAGE + (256 << 20)];
    assertEquals(steps, [first, second, second + (256 << 20), tracked.tracker.size]);
    assertEquals(inPages(written), [[0, 20_000], [pages - 1, pages]]);
  },
);

trackerTest("what a scan that fails made clean is told by the next one", () => {
  using tracked = new Tracked(8, { pagedIn: false });
  tracked.write(1, 2);
  tracked.uffd.unregister(tracked.address(5), PAGE);
  const written = new RangeList();
  const error = assertThrows(() => tracked.tracker.collect(written, 0), SystemError);
  assertEquals((error as SystemError).code, "EPERM");
  assertEquals(written.count, 0);
  tracked.uffd.register(tracked.address(5), PAGE, UFFD_REGISTER.WP);
  tracked.uffd.writeProtect(tracked.address(5), PAGE);
  const again = tracked.collect();
  assert(again.some(([from, to]) => from <= 1 && to >= 3), `${again}`);
});
