import { assert, assertEquals } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { Mapping, pageSize } from "../../ffi/mman.ts";
import { RangeList } from "../backend/range_list.ts";
import { CompareTracker } from "./compare_tracker.ts";

openLibc();

const PAGE = pageSize();

function collect(tracker: CompareTracker): [number, number][] {
  const written = new RangeList();
  for (let at = 0; at < tracker.size;) at = tracker.collect(written, at);
  return [...written].map(({ offset, length }) => [offset / PAGE, (offset + length) / PAGE]);
}

Deno.test("pages that differ from when they were last collected count as written", () => {
  using memory = Mapping.map({ length: 100 * PAGE });
  using tracker = new CompareTracker({
    address: memory.address,
    size: memory.length,
    pageSize: PAGE,
  });
  assertEquals(collect(tracker), []);
  for (const at of [0, 5 * PAGE - 1, 5 * PAGE, 100 * PAGE - 1]) memory.bytes[at] = 1;
  assertEquals(collect(tracker), [[0, 1], [4, 6], [99, 100]]);
  assertEquals(collect(tracker), []);
  memory.bytes[0] = 0;
  assertEquals(collect(tracker), [[0, 1]]);
});

Deno.test("a page that changes after it was collected, and changes back, is not lost", () => {
  using memory = Mapping.map({ length: 4 * PAGE });
  using tracker = new CompareTracker({
    address: memory.address,
    size: memory.length,
    pageSize: PAGE,
  });
  memory.bytes[PAGE] = 1;
  assertEquals(collect(tracker), [[1, 2]]);
  memory.bytes[PAGE] = 2;
  // This is what is pushed, and must be what the memory holds in the end.
  const pushed = tracker.copy[PAGE];
  memory.bytes[PAGE] = 1;
  assertEquals(collect(tracker), []);
  assertEquals(pushed, memory.bytes[PAGE]);
});

Deno.test("a compared range is collected again when it is restored, changed or not", () => {
  using memory = Mapping.map({ length: 8 * PAGE });
  using tracker = new CompareTracker({
    address: memory.address,
    size: memory.length,
    pageSize: PAGE,
  });
  const ranges = new RangeList();
  ranges.add(2 * PAGE, 4 * PAGE);
  tracker.restore(ranges);
  memory.bytes[3 * PAGE] = 9;
  assertEquals(collect(tracker), [[2, 4]]);
  assertEquals(tracker.copy[3 * PAGE], 9);
  assertEquals(collect(tracker), []);
});

Deno.test("compared memory grows, step by step, and what is new counts as written", () => {
  using memory = Mapping.map({ length: 64 * PAGE });
  const range = { address: memory.address, size: PAGE, pageSize: PAGE };
  using tracker = new CompareTracker(range);
  memory.bytes.fill(3);
  collect(tracker);
  for (let pages = 2; pages <= 64; pages++) {
    tracker.grow(pages * PAGE);
    assertEquals(collect(tracker), [[pages - 1, pages]]);
    assert(tracker.copy.length === pages * PAGE && tracker.copy.every((byte) => byte === 3));
  }
});

Deno.test("a step of comparing ends after so much memory", () => {
  using memory = Mapping.map({ length: 16 << 20 });
  using tracker = new CompareTracker({
    address: memory.address,
    size: memory.length,
    pageSize: PAGE,
  });
  assertEquals(tracker.collect(new RangeList(), 0), 4 << 20);
});
