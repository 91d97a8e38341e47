import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { DirtyPages } from "./dirty_pages.ts";
import { RangeList } from "../backend/range_list.ts";

const PAGE = 4096;
const PAGES = 150;
const SIZE = PAGES * PAGE;

const spans: fc.Arbitrary<[number, number][]> = fc.array(
  fc.tuple(fc.nat(SIZE - 1), fc.nat(5 * PAGE)),
  { maxLength: 30 },
);

Deno.test("dirty pages are taken once: those of the marked bytes, within what is asked for", () => {
  fc.assert(fc.property(spans, fc.nat(PAGES), fc.nat(PAGES), (marks, one, other) => {
    const from = Math.min(one, other), to = Math.max(one, other);
    const dirty = new DirtyPages(SIZE, PAGE), model = new Array<boolean>(PAGES).fill(false);
    for (const [start, length] of marks) {
      const end = Math.min(start + length + 1, SIZE);
      dirty.mark(start, end);
      model.fill(true, Math.floor(start / PAGE), Math.ceil(end / PAGE));
    }
    const any = model.slice(from, to).some((is) => is);
    assert(!any || dirty.mayHave(from * PAGE, to * PAGE), "it says that dirty pages may be there");
    assertEquals(
      pagesOf(dirty, from, to),
      model.map((is, page) => is && page >= from && page < to),
    );
    assertEquals(
      pagesOf(dirty, 0, PAGES),
      model.map((is, page) => is && (page < from || page >= to)),
    );
    assertEquals(dirty.mayHave(0, SIZE), false);
  }));
});

Deno.test("dirty pages stay so as their memory grows, and what is new is dirty", () => {
  const dirty = new DirtyPages(3 * PAGE, PAGE);
  dirty.mark(PAGE, PAGE + 1);
  dirty.grow(40 * PAGE);
  const ranges = new RangeList();
  dirty.take(ranges, 0, 40 * PAGE);
  assertEquals([...ranges], [
    { offset: PAGE, length: PAGE },
    { offset: 3 * PAGE, length: 37 * PAGE },
  ]);
});

function pagesOf(dirty: DirtyPages, from: number, to: number): boolean[] {
  const ranges = new RangeList();
  dirty.take(ranges, from * PAGE, to * PAGE);
  const pages = new Array<boolean>(PAGES).fill(false);
  for (const { offset, length } of ranges) {
    pages.fill(true, offset / PAGE, (offset + length) / PAGE);
  }
  return pages;
}
