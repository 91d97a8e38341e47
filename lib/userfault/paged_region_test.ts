import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { PagedRegion } from "./paged_region.ts";

const PAGE = 4096;
const ADDRESS = 16 * PAGE;

function region(pages: number): PagedRegion {
  const layout = { address: ADDRESS, size: pages * PAGE, offset: 0, pageSize: PAGE };
  return new PagedRegion(layout, PAGE, 4 * PAGE);
}

/** What is said of a page, as a word. */
function stateOf(region: PagedRegion, page: number): string {
  const said = [
    region.isPresent(page) && "present",
    region.isUrgent(page) && "urgent",
    region.isAhead(page) && "ahead",
    region.isDropped(page) && "dropped",
  ];
  return said.filter((word) => word !== false).join(" ") || "absent";
}

function statesOf(region: PagedRegion): string[] {
  return Array.from({ length: region.pages }, (_, page) => stateOf(region, page));
}

Deno.test("PagedRegion finds the page of an address, and back", () => {
  const eight = region(8);
  assertEquals(eight.pages, 8);
  assertEquals(eight.addressOf(3), ADDRESS + 3 * PAGE);
  const addresses = [ADDRESS, ADDRESS + PAGE - 1, ADDRESS + PAGE, ADDRESS + 8 * PAGE - 1];
  assertEquals(addresses.map((address) => eight.pageOf(address)), [0, 0, 1, 7]);
});

Deno.test("PagedRegion knows who pulls a page, until it is in place", () => {
  const four = region(4);
  assertEquals(statesOf(four), ["absent", "absent", "absent", "absent"]);
  four.beginAhead(0, 3);
  four.beginUrgent(1, 2);
  assertEquals(statesOf(four), ["ahead", "urgent", "ahead", "absent"]);
  four.settle(0, 2);
  assertEquals(statesOf(four), ["present", "present", "ahead", "absent"]);
});

Deno.test("PagedRegion lets go of what could not be pulled, and of nothing else", () => {
  const four = region(4);
  four.beginAhead(0, 3);
  four.beginUrgent(1, 2);
  four.settle(0, 1);
  four.giveUpAhead(0, 4);
  assertEquals(statesOf(four), ["present", "urgent", "absent", "absent"]);
  four.beginAhead(2, 3);
  four.giveUpUrgent(0, 4);
  assertEquals(statesOf(four), ["present", "absent", "ahead", "absent"]);
});

Deno.test("PagedRegion finds zeroes where its process dropped pages", () => {
  const four = region(4);
  four.settle(0, 1);
  four.beginUrgent(1, 2);
  four.beginAhead(2, 3);
  four.drop(0, 4);
  assertEquals(statesOf(four), ["dropped", "urgent dropped", "dropped", "dropped"]);
  four.settle(0, 2);
  assertEquals(statesOf(four).slice(0, 2), ["present dropped", "present dropped"]);
  assertEquals(four.nextAbsent(0), 4);
});

Deno.test("PagedRegion bounds a run by what somebody has taken", () => {
  const many = region(100);
  many.beginUrgent(10, 12);
  many.beginAhead(40, 80);
  many.settle(90, 91);
  assertEquals([many.absentFrom(30, 0), many.absentFrom(30, 20)], [12, 20]);
  assertEquals([many.absentTo(30, 100), many.absentTo(30, 35)], [40, 35]);
  assertEquals([10, 11, 12, 40, 90, 91].map((page) => many.nextAbsent(page)), [
    12,
    12,
    12,
    80,
    91,
    91,
  ]);
  assertEquals(many.nextAbsent(100), 100);
  many.beginAhead(80, 100);
  assertEquals(many.nextAbsent(85), 100);
});

Deno.test("PagedRegion reads around what is poisoned, until that has its content", () => {
  const eight = region(8);
  const readable = () => {
    const runs: [number, number][] = [];
    for (let at = 100; at < 8 * PAGE - 50;) {
      const to = eight.readableTo(at, 8 * PAGE - 50);
      if (to > at) runs.push([at, to]);
      at = to > at ? to : (Math.floor(at / PAGE) + 1) * PAGE;
    }
    return runs;
  };
  eight.settle(0, 8);
  assertEquals(readable(), [[100, 8 * PAGE - 50]]);
  for (const page of [2, 3, 7]) eight.poison(page);
  assertEquals(readable(), [[100, 2 * PAGE], [4 * PAGE, 7 * PAGE]]);
  assert(eight.isPresent(3));
  eight.settle(3, 4);
  eight.fill(2, 3);
  assertEquals(readable(), [[100, 3 * PAGE], [4 * PAGE, 7 * PAGE]]);
});

const CHANGES = ["beginUrgent", "beginAhead", "giveUpUrgent", "giveUpAhead", "settle"] as const;

Deno.test("PagedRegion is absent, ahead, urgent or present, as a model says", () => {
  const PAGES = 70;
  fc.assert(fc.property(
    fc.array(fc.tuple(fc.constantFrom(...CHANGES), fc.nat(PAGES - 1), fc.nat(20))),
    (changes) => {
      const paged = region(PAGES);
      const model = new Array<string>(PAGES).fill("absent");
      for (const [change, from, length] of changes) {
        let to = Math.min(from + 1 + length, PAGES);
        if (change === "beginAhead" || change === "beginUrgent") {
          // Only what nobody has taken is pulled; a fault takes over single pages pulled ahead.
          const over = change === "beginUrgent" && model[from] === "ahead";
          if (over) to = from + 1;
          else if (model.slice(from, to).some((state) => state !== "absent")) continue;
        }
        paged[change](from, to);
        for (let page = from; page < to; page++) model[page] = next(model[page]!, change);
      }
      assertEquals(statesOf(paged), model);
      for (let page = 0; page < PAGES; page++) {
        const absent = model.indexOf("absent", page);
        assertEquals(paged.nextAbsent(page), absent < 0 ? PAGES : absent);
        if (model[page] !== "absent") continue;
        const from = paged.absentFrom(page, 0), to = paged.absentTo(page, PAGES);
        assert(model.slice(from, to).every((state) => state === "absent"));
        assert(from === 0 || model[from - 1] !== "absent");
        assert(to === PAGES || model[to] !== "absent");
      }
    },
  ));
});

function next(state: string, change: typeof CHANGES[number]): string {
  switch (change) {
    case "beginUrgent":
      return "urgent";
    case "beginAhead":
      return "ahead";
    case "giveUpUrgent":
      return state === "urgent" ? "absent" : state;
    case "giveUpAhead":
      return state === "ahead" ? "absent" : state;
    case "settle":
      return "present";
  }
}
