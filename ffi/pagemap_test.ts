import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { requiresAll, requiresThat, withReason } from "../tests/requires.ts";
import { writeOnThread } from "../tests/touch.ts";
import { SystemError } from "./errno.ts";
import { close, ftruncate, O, open, pread, readKernelText } from "./file.ts";
import { openLibc } from "./libc.ts";
import { MAP, Mapping, memfdCreate, pageSize } from "./mman.ts";
import {
  PAGE_IS,
  type PagemapQuery,
  PagemapScanner,
  PM_SCAN,
  probePagemapScan,
} from "./pagemap.ts";
import { openUserfault, probeUserfault, UFFD_FEATURE } from "./userfault_open.ts";
import { UFFD_REGISTER, Userfault } from "./userfaultfd.ts";

openLibc();

const PAGE = pageSize();
const TRACKING = UFFD_FEATURE.WP_ASYNC | UFFD_FEATURE.WP_UNPOPULATED;

const scan = probePagemapScan();
const scanning = requiresThat(scan.available, scan.reason ?? "");
const tracking = requiresAll(
  scanning,
  requiresThat((TRACKING & ~probeUserfault().features) === 0, "userfaultfd has no WP_ASYNC"),
);

/** What finds written pages and makes them clean. */
const COLLECT: PagemapQuery = {
  flags: PM_SCAN.WP_MATCHING | PM_SCAN.CHECK_WPASYNC,
  all: PAGE_IS.WRITTEN,
  report: PAGE_IS.WRITTEN,
};

/** Some pages of anonymous memory whose writes are tracked; all are clean. */
class Tracked implements Disposable {
  readonly memory: Mapping;
  readonly #uffd: Userfault;

  constructor(pages: number) {
    this.memory = Mapping.map({ length: pages * PAGE });
    const { fd } = openUserfault({ required: TRACKING, userModeOnly: true });
    this.#uffd = new Userfault(fd);
    this.#uffd.register(this.memory.address, this.memory.length, UFFD_REGISTER.WP);
    this.#uffd.writeProtect(this.memory.address, this.memory.length);
  }

  /** Writes to pages. */
  write(...pages: number[]): void {
    for (const page of pages) this.memory.bytes[page * PAGE] = 1;
  }

  [Symbol.dispose](): void {
    this.#uffd[Symbol.dispose]();
    this.memory.unmap();
  }
}

/** Scans a mapping from a page on: the ranges, in pages, and the page where the scan stopped. */
function pagesFound(scanner: PagemapScanner, memory: Mapping, from = 0): [number[][], number] {
  const { address, length } = memory;
  const pageOf = (at: number) => (at - address) / PAGE;
  const count = scanner.scan(address + from * PAGE, address + length);
  const ranges = Array.from(
    { length: count },
    (_, index) => [pageOf(scanner.start(index)), pageOf(scanner.end(index))],
  );
  return [ranges, pageOf(scanner.walkEnd)];
}

Deno.test({
  name: withReason("written pages are found once, until they are written again", tracking),
  ignore: tracking.ignore,
  fn() {
    using tracked = new Tracked(16);
    using scanner = new PagemapScanner(COLLECT);
    const { memory } = tracked;
    assertEquals(pagesFound(scanner, memory), [[], 16]);
    tracked.write(0, 3, 4, 5, 15);
    assertEquals(pagesFound(scanner, memory), [[[0, 1], [3, 6], [15, 16]], 16]);
    assertEquals(scanner.categories(1), PAGE_IS.WRITTEN);
    assertEquals(pagesFound(scanner, memory), [[], 16]);
    tracked.write(4);
    assertEquals(memory.bytes[7 * PAGE], 0);
    assertEquals(pagesFound(scanner, memory), [[[4, 5]], 16]);
  },
});

Deno.test({
  name: withReason("looking at written pages leaves them written", tracking),
  ignore: tracking.ignore,
  fn() {
    using tracked = new Tracked(4);
    using looker = new PagemapScanner({ ...COLLECT, flags: 0 });
    tracked.write(2);
    for (let time = 0; time < 2; time++) {
      assertEquals(pagesFound(looker, tracked.memory), [[[2, 3]], 4]);
    }
  },
});

Deno.test({
  name: withReason("a scan that is full goes on where it stopped, and loses nothing", tracking),
  ignore: tracking.ignore,
  fn() {
    using tracked = new Tracked(16);
    const { memory } = tracked;
    for (const limit of [{ capacity: 2 }, { maxPages: 2 }]) {
      using scanner = new PagemapScanner({ ...COLLECT, ...limit });
      tracked.write(1, 3, 5, 7, 9);
      const found: number[] = [];
      for (let from = 0, scans = 0; from < 16; scans++) {
        assert(scans < 5);
        const [ranges, end] = pagesFound(scanner, memory, from);
        assert(ranges.length <= 2);
        found.push(...ranges.map(([start]) => start!));
        from = end;
      }
      assertEquals(found, [1, 3, 5, 7, 9]);
    }
  },
});

Deno.test({
  name: withReason("no write of another thread escapes the scans", tracking),
  ignore: tracking.ignore,
  async fn() {
    const PAGES = 16384;
    using tracked = new Tracked(PAGES);
    using scanner = new PagemapScanner({ ...COLLECT, capacity: 64 });
    const { address, length, bytes } = tracked.memory;
    const seen = new Uint8Array(PAGES);
    const copy = new Uint8Array(length);
    const collect = () => {
      for (let from = address; from < address + length; from = scanner.walkEnd) {
        const count = scanner.scan(from, address + length);
        for (let index = 0; index < count; index++) {
          const start = scanner.start(index) - address, end = scanner.end(index) - address;
          seen.fill(1, start / PAGE, end / PAGE);
          copy.set(bytes.subarray(start, end), start);
        }
      }
    };
    let writing = true;
    const written = writeOnThread(address, length, 7).finally(() => writing = false);
    while (writing) {
      collect();
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    await written;
    collect();
    assertEquals(seen.indexOf(0), -1);
    assertEquals(copy.indexOf(0), -1);
  },
});

Deno.test({
  name: withReason("what the kernel writes counts, even in user mode", tracking),
  ignore: tracking.ignore,
  fn() {
    using tracked = new Tracked(2);
    using scanner = new PagemapScanner(COLLECT);
    const file = open("/proc/self/exe", O.RDONLY);
    assertEquals(pread(file, tracked.memory.bytes.subarray(PAGE), 0), PAGE);
    assertEquals(pagesFound(scanner, tracked.memory), [[[1, 2]], 2]);
    close(file);
  },
});

Deno.test({
  name: withReason("memory whose writes nobody tracks is refused, or skipped", tracking),
  ignore: tracking.ignore,
  fn() {
    using memory = Mapping.map({ length: PAGE });
    memory.bytes[0] = 1;
    using strict = new PagemapScanner(COLLECT);
    const error = assertThrows(() => pagesFound(strict, memory), SystemError);
    assertEquals(error.code, "EPERM");
    assertStringIncludes(error.message, "register all of it with a userfaultfd that has WP_ASYNC");
    using lenient = new PagemapScanner({ ...COLLECT, flags: PM_SCAN.WP_MATCHING });
    assertEquals(pagesFound(lenient, memory), [[], 1]);
  },
});

Deno.test({
  name: withReason("pages are told apart by what they are", scanning),
  ignore: scanning.ignore,
  fn() {
    using memory = Mapping.map({ length: 4 * PAGE });
    memory.bytes[0] = 1;
    assertEquals(memory.bytes[PAGE], 0);
    const { PRESENT, PFNZERO, FILE } = PAGE_IS;
    using present = new PagemapScanner({ all: PRESENT, report: PRESENT | PFNZERO | FILE });
    assertEquals(pagesFound(present, memory), [[[0, 1], [1, 2]], 4]);
    assertEquals([present.categories(0), present.categories(1)], [PRESENT, PRESENT | PFNZERO]);
    using missing = new PagemapScanner({ all: PRESENT, inverted: PRESENT });
    assertEquals(pagesFound(missing, memory), [[[2, 4]], 4]);
    using either = new PagemapScanner({ any: PFNZERO | FILE });
    assertEquals(pagesFound(either, memory), [[[1, 2]], 4]);

    const file = memfdCreate("telemap-test");
    ftruncate(file, PAGE, "telemap-test");
    using shared = Mapping.map({ length: PAGE, fd: file, flags: MAP.SHARED });
    shared.bytes[0] = 1;
    assertEquals(pagesFound(present, shared), [[[0, 1]], 1]);
    assertEquals(present.categories(0), PRESENT | FILE);
    close(file);
  },
});

Deno.test({
  name: withReason("another process's memory is scanned", scanning),
  ignore: scanning.ignore,
  async fn() {
    const child = new Deno.Command("cat", { stdin: "piped", stdout: "null" }).spawn();
    const { pid } = child;
    const first = /^([0-9a-f]+)-([0-9a-f]+) /.exec(readKernelText(`/proc/${pid}/maps`))!;
    const [start, end] = first.slice(1).map((text) => parseInt(text, 16)) as [number, number];
    {
      using scanner = new PagemapScanner({ pid, all: PAGE_IS.PRESENT });
      assert(scanner.scan(start, end) >= 1);
      assertEquals(scanner.start(0), start);
    }
    await child.stdin.close();
    await child.status;
    const error = assertThrows(() => new PagemapScanner({ pid }), SystemError);
    assertEquals(error.code, "ENOENT");
  },
});

Deno.test("a kernel that cannot scan says which one can", () => {
  using scanner = new PagemapScanner({});
  if (scan.available) return assertEquals(scanner.scan(0, 0), 0);
  const error = assertThrows(() => scanner.scan(0, 0), SystemError);
  assertEquals(error.code, "ENOTTY");
  assertEquals(scan.reason, error.message);
  assertStringIncludes(error.message, "Linux 6.7 or later has PAGEMAP_SCAN");
});

Deno.test("a closed scanner, an unaligned range, and a capacity out of bounds are refused", () => {
  const scanner = new PagemapScanner({});
  if (scan.available) {
    assertEquals(assertThrows(() => scanner.scan(1, PAGE), SystemError).code, "EINVAL");
  }
  scanner[Symbol.dispose]();
  scanner[Symbol.dispose]();
  assertEquals(assertThrows(() => scanner.scan(0, PAGE), SystemError).code, "EBADF");
  for (const capacity of [0, 2 ** 20 + 1, NaN]) {
    assertThrows(() => new PagemapScanner({ capacity }), RangeError);
  }
});
