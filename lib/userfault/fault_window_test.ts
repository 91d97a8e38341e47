import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { FaultWindow } from "./fault_window.ts";

const PAGES = 1 << 16;

/** The windows of faults that touch pages in that order, each where no window before covers it. */
function windows(window: FaultWindow, touched: Iterable<number>): number[] {
  const present = new Set<number>();
  const sizes: number[] = [];
  for (const page of touched) {
    if (present.has(page)) continue;
    window.next(page);
    for (let at = window.from; at < window.to; at++) present.add(at);
    sizes.push(window.to - window.from);
  }
  return sizes;
}

function* range(from: number, to: number, step = 1): Generator<number> {
  for (let page = from; page !== to; page += step) yield page;
}

Deno.test("FaultWindow grows with faults in order, up to its most", () => {
  const window = new FaultWindow(PAGES, 16, 256);
  assertEquals(windows(window, range(0, 1008)), [16, 32, 64, 128, 256, 256, 256]);
});

Deno.test("FaultWindow grows backwards too", () => {
  const window = new FaultWindow(PAGES, 16, 256);
  assertEquals(windows(window, range(4095, 4095 - 496, -1)), [16, 32, 64, 128, 256]);
  assertEquals(window.to, 4096 - 16 - 32 - 64 - 128);
});

Deno.test("FaultWindow follows several sequences at a time", () => {
  const window = new FaultWindow(PAGES, 16, 256);
  const touched = [];
  for (let page = 0; page < 240; page++) {
    for (const start of [0, 10_000, 20_000]) touched.push(start - start % 16 + page);
  }
  const sizes = windows(window, touched);
  assertEquals(sizes.slice(-3), [128, 128, 128]);
});

Deno.test("FaultWindow shrinks to a page with scattered faults", () => {
  const window = new FaultWindow(PAGES, 16, 256);
  const scattered = Array.from({ length: 100 }, (_, index) => (index * 7919 * 13) % PAGES);
  const sizes = windows(window, scattered);
  assertEquals(sizes.slice(0, 5), [16, 8, 4, 2, 1]);
  assert(sizes.slice(5).every((size) => size === 1));
});

Deno.test("FaultWindow takes a touch at some distance from a sequence for a scattered one", () => {
  const window = new FaultWindow(PAGES, 16, 256);
  windows(window, range(4096, 4096 + 1008));
  window.next(4096 - 20);
  assert(window.to - window.from <= 16);
});

Deno.test("FaultWindow covers the page, and stays inside the region", () => {
  fc.assert(fc.property(
    fc.integer({ min: 1, max: 300 }),
    fc.integer({ min: 1, max: 32 }),
    fc.integer({ min: 1, max: 64 }),
    fc.array(fc.nat(), { maxLength: 60 }),
    (pages, base, most, touched) => {
      const window = new FaultWindow(pages, base, most);
      for (const at of touched) {
        const page = at % pages;
        window.next(page);
        assert(window.from >= 0 && window.from <= page && page < window.to);
        assert(window.to <= pages && window.to - window.from <= Math.max(base, most));
      }
    },
  ));
});
