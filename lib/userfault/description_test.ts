import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ProtocolError } from "../backend/errors.ts";
import {
  DESCRIPTION_BYTES_MAX,
  DescriptionReader,
  formatDescription,
  parseDescription,
} from "./description.ts";
import { type MemoryRegion, REGIONS_MAX } from "./layout.ts";

const PAGE = 4096;
const BACKEND = 64 * PAGE;
const BOUNDS = { backendSize: BACKEND, pageSize: PAGE };
const encoder = new TextEncoder();

function region(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    base_host_virt_addr: 0x7f00_0000_0000,
    size: PAGE,
    offset: 0,
    page_size: PAGE,
    ...changes,
  };
}

function parse(described: unknown): MemoryRegion[] {
  return parseDescription(JSON.stringify(described), BOUNDS);
}

Deno.test("the description of two regions as Firecracker sends it is read", () => {
  const text = '[{"base_host_virt_addr":140737353089024,"size":131072,"offset":0,' +
    '"page_size":4096,"page_size_kib":4096},{"base_host_virt_addr":140737352957952,' +
    '"size":131072,"offset":131072,"page_size":4096,"page_size_kib":4096}]';
  assertEquals(parseDescription(text, BOUNDS), [
    { address: 140737352957952, size: 131072, offset: 131072, pageSize: 4096 },
    { address: 140737353089024, size: 131072, offset: 0, pageSize: 4096 },
  ]);
});

Deno.test("huge pages are told of, and the kernel's pages are taken where none are", () => {
  const huge = 2 << 20;
  const bounds = { backendSize: huge, pageSize: PAGE };
  const text = JSON.stringify([region({ page_size: huge, size: huge })]);
  assertEquals(parseDescription(text, bounds)[0]!.pageSize, huge);
  const { page_size: _, ...silent } = region();
  assertEquals(parse([silent])[0]!.pageSize, PAGE);
});

Deno.test("the last page of a backend may be part of one", () => {
  const bounds = { backendSize: PAGE + 1, pageSize: PAGE };
  assertEquals(parseDescription(JSON.stringify([region({ size: 2 * PAGE })]), bounds).length, 1);
  const longer = JSON.stringify([region({ size: 3 * PAGE })]);
  assertThrows(() => parseDescription(longer, bounds), ProtocolError, "ends at offset 12288");
});

const WRONG: [string, unknown, string][] = [
  ["nothing", [], "0 regions"],
  ["too many regions", Array<unknown>(REGIONS_MAX + 1).fill(region()), "1025 regions"],
  ["an object", {}, "not an array"],
  ["a number as a region", [1], "not an object"],
  ["an array as a region", [[]], "not an object"],
  ["null as a region", [null], "not an object"],
  ["no address", [{ size: PAGE, offset: 0 }], "nothing as its base_host_virt_addr"],
  ["a text as a size", [region({ size: "4096" })], "string as its size"],
  ["a negative offset", [region({ offset: -PAGE })], "-4096 as its offset"],
  ["an address beyond 2^53", [region({ base_host_virt_addr: 2 ** 60 })], "base_host_virt_addr"],
  ["half a byte", [region({ offset: 0.5 })], "0.5 as its offset"],
  ["an odd address", [region({ base_host_virt_addr: 4097 })], "not whole pages"],
  ["an odd size", [region({ size: 4097 })], "not whole pages"],
  ["a size of 0", [region({ size: 0 })], "not whole pages"],
  ["an address of 0", [region({ base_host_virt_addr: 0 })], "not whole pages"],
  ["pages of 3 KiB", [region({ page_size: 3072 })], "3072"],
  ["pages of 12 KiB", [region({ page_size: 12288, size: 12288 })], "12288"],
  ["pages of 4 GiB", [region({ page_size: 2 ** 32, size: 2 ** 32 })], "4294967296"],
  ["a region behind the backend", [region({ offset: BACKEND })], "offset 262144"],
  ["a region over the backend's end", [region({ size: 65 * PAGE })], "ends at offset"],
  ["overlapping regions", [region({ size: 2 * PAGE }), region()], "told of twice"],
  [
    "regions that are more than the backend",
    [0, 1, 2].map((index) => region({ base_host_virt_addr: (1 + index) * 2 ** 30, size: BACKEND })),
    "altogether",
  ],
];

for (const [name, described, message] of WRONG) {
  Deno.test(`a description with ${name} is refused`, () => {
    const error = assertThrows(() => parse(described), ProtocolError);
    assert(error.message.includes(message), error.message);
  });
}

Deno.test("what is not JSON is refused", () => {
  for (const text of ["", "[", "[}]", "[{]}", "[{'size': 1}]", "[nonsense]"]) {
    assertThrows(() => parseDescription(text, BOUNDS), ProtocolError);
  }
});

Deno.test("a description is complete with its last bracket, wherever it is cut", () => {
  const text = ' [{"note":"]}\\"[","size":1},\n{}] ';
  const bytes = encoder.encode(text);
  const end = text.lastIndexOf("]") + 1;
  for (let cut = 0; cut <= bytes.length; cut++) {
    const reader = new DescriptionReader();
    assertEquals(reader.push(bytes.subarray(0, cut)), cut >= end, `cut at ${cut}`);
    assertEquals(reader.push(bytes.subarray(cut)), true);
    assertEquals(reader.text(), text);
  }
});

Deno.test("bytes that are no array, behind its end, too many or no UTF-8 are refused", () => {
  for (const text of ["hello", "{}", "  ]", "[]]", "[] x"]) {
    assertThrows(() => new DescriptionReader().push(encoder.encode(text)), ProtocolError);
  }
  const reader = new DescriptionReader();
  const blanks = new Uint8Array(DESCRIPTION_BYTES_MAX).fill(0x20);
  assertEquals(reader.push(blanks), false);
  assertThrows(() => reader.push(blanks.subarray(0, 1)), ProtocolError, "longer than");
  const wrong = new DescriptionReader();
  assertEquals(wrong.push(new Uint8Array([0x5b, 0x22, 0xff, 0x22, 0x5d])), true);
  assertThrows(() => wrong.text(), ProtocolError, "UTF-8");
});

Deno.test("as many regions as may be fit into a description", () => {
  const regions = Array.from({ length: REGIONS_MAX }, (_, index) => ({
    address: 2 ** 55 - (REGIONS_MAX - index) * 2 ** 40,
    size: 2 ** 40,
    offset: 2 ** 52 - 2 ** 40,
    pageSize: 2 ** 30,
  }));
  assert(encoder.encode(formatDescription(regions)).length < DESCRIPTION_BYTES_MAX / 1.5);
});

const pages = fc.nat({ max: 80 }).map((count) => count * PAGE);
const value = fc.oneof(
  pages,
  fc.nat({ max: 10_000 }),
  fc.double(),
  fc.constantFrom(-1, 2 ** 53, 2 ** 56, 2 ** 64, null, "1", [], {}),
);
const anyRegion = fc.record(
  { base_host_virt_addr: value, size: value, offset: value, page_size: value, more: fc.json() },
  { requiredKeys: [] },
);

Deno.test("whatever is described is either refused as such or within bounds", () => {
  fc.assert(fc.property(
    fc.oneof(fc.array(anyRegion, { maxLength: 4 }), fc.jsonValue()),
    (described) => {
      let regions: MemoryRegion[];
      try {
        regions = parse(described);
      } catch (error) {
        assert(error instanceof ProtocolError, `${error}`);
        return;
      }
      let end = 0;
      for (const { address, size, offset, pageSize } of regions) {
        assert(address >= end && address % pageSize === 0 && size % pageSize === 0);
        assert(size > 0 && offset + size < BACKEND + pageSize);
        end = address + size;
      }
    },
  ));
});

Deno.test("what is formatted is read as it was, in any pieces", () => {
  const regions = fc.array(fc.tuple(fc.nat({ max: 3 }), fc.integer({ min: 1, max: 4 })), {
    minLength: 1,
    maxLength: 8,
  }).map((gaps) => {
    let at = 1;
    return gaps.map(([gap, count]) => {
      const region = { address: (at + gap) * PAGE, size: count * PAGE, offset: at, pageSize: PAGE };
      at += gap + count;
      return region;
    });
  });
  fc.assert(fc.property(regions, fc.array(fc.nat({ max: 2000 })), (regions, cuts) => {
    const bytes = encoder.encode(formatDescription(regions));
    const reader = new DescriptionReader();
    let at = 0;
    for (const cut of cuts.filter((cut) => cut < bytes.length).sort((a, b) => a - b)) {
      assertEquals(reader.push(bytes.subarray(at, cut)), false);
      at = cut;
    }
    assertEquals(reader.push(bytes.subarray(at)), true);
    assertEquals(parseDescription(reader.text(), BOUNDS), regions);
  }));
});

Deno.test("random bytes are refused, or wait for more", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.string({ unit: fc.constantFrom(...'[]{}",:\\ 1n'), maxLength: 60 })
      .map((text) => encoder.encode(`[${text}`)),
  );
  fc.assert(fc.property(bytes, (bytes) => {
    const reader = new DescriptionReader();
    try {
      if (reader.push(bytes)) parseDescription(reader.text(), BOUNDS);
    } catch (error) {
      assert(error instanceof ProtocolError, `${error}`);
    }
  }));
});
