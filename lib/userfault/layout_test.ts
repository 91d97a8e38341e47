import { assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "../backend/errors.ts";
import { checkedLayout, REGIONS_MAX } from "./layout.ts";

const PAGE = 4096;
const region = { address: 16 * PAGE, size: 4 * PAGE, offset: 0, pageSize: PAGE };

Deno.test("a layout is sorted by address", () => {
  const later = { ...region, address: 32 * PAGE, offset: PAGE };
  assertEquals(checkedLayout([later, region], 5 * PAGE), [region, later]);
});

const WRONG: Record<string, Partial<typeof region>> = {
  "an address inside a page": { address: 16 * PAGE + 1 },
  "an address of 0": { address: 0 },
  "no bytes": { size: 0 },
  "part of a page": { size: PAGE + 512 },
  "a size that is no integer": { size: NaN },
  "an end beyond all memory": { address: 2 ** 60 },
  "an offset at the backend's end": { offset: 5 * PAGE },
  "an offset below 0": { offset: -PAGE },
  "pages that are no power of two": { pageSize: 12288, address: 12288 * 4, size: 12288 },
  "pages that no buffer holds": { pageSize: 1 << 30, address: 1 << 30, size: 1 << 30 },
  "pages below those of any kernel": { pageSize: 512 },
};

for (const [what, change] of Object.entries(WRONG)) {
  Deno.test(`a layout refuses ${what}`, () => {
    assertThrows(() => checkedLayout([{ ...region, ...change }], 5 * PAGE), UsageError);
  });
}

Deno.test("a layout refuses regions that overlap, none and too many", () => {
  const overlapping = { ...region, address: region.address + 3 * PAGE };
  assertThrows(() => checkedLayout([overlapping, region], 5 * PAGE), UsageError, "twice");
  assertThrows(() => checkedLayout([], 5 * PAGE), UsageError);
  const many = Array.from({ length: REGIONS_MAX + 1 }, (_, index) => ({
    ...region,
    address: (index + 1) * 8 * PAGE,
  }));
  assertThrows(() => checkedLayout(many, 5 * PAGE), UsageError);
});
