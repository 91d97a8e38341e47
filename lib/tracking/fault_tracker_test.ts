import { assertEquals } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { Mapping, pageSize } from "../../ffi/mman.ts";
import { UserfaultMessages } from "../../ffi/userfault_messages.ts";
import { openUserfault, UFFD_FEATURE } from "../../ffi/userfault_open.ts";
import { UFFD_FILL, UFFD_REGISTER, Userfault } from "../../ffi/userfaultfd.ts";
import { requiresThat, withReason } from "../../tests/requires.ts";
import { awaitReadable, writeOnThread } from "../../tests/touch.ts";
import { RangeList } from "../backend/range_list.ts";
import { FaultTracker } from "./fault_tracker.ts";
import { probeTracking } from "./tracking_probe.ts";

openLibc();

const PAGE = pageSize();
const PAGES = 16;
const probe = probeTracking().find(({ method }) => method === "wp-faults")!;
// Whoever writes in these tests does so in libc, on another thread: that is user mode.
const needs = requiresThat(probe.available, probe.reason ?? "");

function trackerTest(name: string, fn: () => Promise<void>): void {
  Deno.test({ name: withReason(name, needs), ignore: needs.ignore, fn });
}

/** Memory whose pages are all in place and protected, and the handler of its faults. */
class Handled implements Disposable {
  readonly memory = Mapping.map({ length: PAGES * PAGE });
  readonly uffd: Userfault;
  readonly tracker: FaultTracker;
  readonly #messages = new UserfaultMessages();

  constructor() {
    const required = UFFD_FEATURE.PAGEFAULT_FLAG_WP;
    this.uffd = new Userfault(openUserfault({ required }).fd);
    const { address, length: size } = this.memory;
    this.uffd.register(address, size, UFFD_REGISTER.WP | UFFD_REGISTER.MISSING);
    using source = Mapping.map({ length: size });
    assertEquals(this.uffd.copy(address, source.address, size, UFFD_FILL.WP), size);
    this.tracker = new FaultTracker(this.uffd, { address, size, pageSize: PAGE });
  }

  /** Begins to write to a page on another thread. */
  write(page: number): Promise<void> {
    return writeOnThread(this.memory.address + page * PAGE + 5, 1, 1);
  }

  /** Waits for a write to a protected page, and answers where that is. */
  nextFault(): number {
    awaitReadable(this.uffd.fd);
    assertEquals(this.#messages.read(this.uffd.fd), 1);
    return this.#messages.address(0);
  }

  /** Whether nobody waits for a page. */
  get quiet(): boolean {
    return this.#messages.read(this.uffd.fd) === 0;
  }

  collect(): [number, number][] {
    const written = new RangeList();
    for (let at = 0; at < this.tracker.size;) at = this.tracker.collect(written, at);
    return [...written].map(({ offset, length }) => [offset / PAGE, (offset + length) / PAGE]);
  }

  [Symbol.dispose](): void {
    this.uffd[Symbol.dispose]();
    this.memory.unmap();
  }
}

trackerTest(
  "the first write to a page after it was collected is a fault, later ones are not",
  async () => {
    using handled = new Handled();
    for (let round = 0; round < 3; round++) {
      const writing = handled.write(3);
      handled.tracker.onWriteFault(handled.nextFault());
      await writing;
      await handled.write(3);
      assertEquals(handled.quiet, true);
      assertEquals(handled.collect(), [[3, 4]]);
      assertEquals(handled.collect(), []);
    }
  },
);

trackerTest("a write that waits while pages are collected is in the next collection", async () => {
  using handled = new Handled();
  const writing = handled.write(3);
  const address = handled.nextFault();
  assertEquals(handled.collect(), []);
  assertEquals(handled.memory.bytes[3 * PAGE + 5], 0);
  handled.tracker.onWriteFault(address);
  await writing;
  assertEquals(handled.collect(), [[3, 4]]);
  assertEquals(handled.memory.bytes[3 * PAGE + 5], 1);
});

trackerTest("restored ranges and marked pages are collected with what was written", async () => {
  using handled = new Handled();
  const ranges = new RangeList();
  ranges.add(3 * PAGE, 5 * PAGE);
  handled.tracker.restore(ranges);
  handled.tracker.markWritten(handled.memory.address + 9 * PAGE);
  const writing = handled.write(5);
  handled.tracker.onWriteFault(handled.nextFault());
  await writing;
  assertEquals(handled.collect(), [[3, 6], [9, 10]]);
  assertEquals(handled.collect(), []);
});
