import { assertEquals } from "@std/assert";
import {
  readU64,
  S_IF,
  writeAttributes,
  writeDirectoryEntry,
  writeEntry,
  writeInit,
  writeOpen,
  writeOutHeader,
  writeStatistics,
  writeU64,
} from "./protocol.ts";

/** Where the tests write, with what was there before showing. */
function dirty(): { view: DataView<ArrayBuffer>; hex: (from: number, length: number) => string } {
  const bytes = new Uint8Array(256).fill(0xee);
  const hex = (from: number, length: number) => bytes.subarray(from, from + length).toHex();
  return { view: new DataView(bytes.buffer), hex };
}

const FILE = {
  node: 2,
  size: 0x1_0000_0201,
  mode: S_IF.REGULAR | 0o640,
  links: 1,
  uid: 1000,
  gid: 100,
  blockSize: 4096,
  modified: 1.5e12 + 250,
};

Deno.test("u64s are exact to 2^53", () => {
  const { view, hex } = dirty();
  for (const value of [0, 1, 0xffff_ffff, 0x1_0000_0000, Number.MAX_SAFE_INTEGER]) {
    writeU64(view, 8, value);
    assertEquals(readU64(view, 8), value);
    assertEquals(view.getBigUint64(8, true), BigInt(value));
  }
  assertEquals(hex(0, 8) + hex(16, 8), "ee".repeat(16));
  view.setBigUint64(8, 0xffff_ffff_ffff_ffffn, true);
  assertEquals(Number.isSafeInteger(readU64(view, 8)), false);
});

Deno.test("writeOutHeader() answers the request that lies elsewhere", () => {
  const { view, hex } = dirty();
  view.setBigUint64(100 + 8, 0x1122_3344_5566_7788n, true);
  writeOutHeader(view, 0, 100, 0, 9);
  assertEquals(hex(0, 17), "19000000" + "00000000" + "8877665544332211" + "ee");
  writeOutHeader(view, 0, 100, 5, 0);
  assertEquals(hex(0, 16), "10000000" + "fbffffff" + "8877665544332211");
});

Deno.test("writeInit() writes struct fuse_init_out", () => {
  const { view, hex } = dirty();
  writeInit(view, 0, {
    minor: 31,
    flags: 0x400021,
    maxReadahead: 0x20000,
    maxBackground: 64,
    maxWrite: 0x100000,
    maxPages: 256,
  });
  const fields = "07000000" + "1f000000" + "00000200" + "21004000" + "4000" + "3000" + "00001000" +
    "01000000" + "0001";
  assertEquals(hex(0, 65), fields.padEnd(128, "0") + "ee");
});

const ATTR = "0200000000000000" + "0102000001000000" + "0200800000000000" +
  "002f685900000000".repeat(3) + "80b2e60e".repeat(3) +
  "a0810000" + "01000000" + "e8030000" + "64000000" + "00000000" + "00100000" + "00000000";

Deno.test("writeAttributes() writes struct fuse_attr_out", () => {
  const { view, hex } = dirty();
  writeAttributes(view, 0, FILE);
  assertEquals(hex(0, 105), "ffffff7f00000000" + "0000000000000000" + ATTR + "ee");
});

Deno.test("writeEntry() writes struct fuse_entry_out, for a name or for none", () => {
  const { view, hex } = dirty();
  writeEntry(view, 0, FILE);
  const valid = "ffffff7f00000000";
  const none = "0000000000000000";
  assertEquals(hex(0, 129), "0200000000000000" + none + valid + valid + none + ATTR + "ee");
  writeEntry(view, 0, undefined);
  assertEquals(hex(0, 128), none + none + valid + none.repeat(13));
});

Deno.test("writeOpen() and writeStatistics() write their structs", () => {
  const { view, hex } = dirty();
  writeOpen(view, 0, 2, 2);
  assertEquals(hex(0, 17), "0200000000000000" + "02000000" + "00000000" + "ee");
  writeStatistics(view, 0, { blockSize: 4096, blocks: 300, files: 1 });
  const zero = "0000000000000000";
  assertEquals(
    hex(0, 81),
    "2c01000000000000" + zero + zero + "0100000000000000" + zero + "00100000" + "ff000000" +
      "00100000" + "0".repeat(56) + "ee",
  );
});

Deno.test("writeDirectoryEntry() pads to 8 bytes and writes only what fits", () => {
  const { view, hex } = dirty();
  const entry = { node: 2, type: S_IF.REGULAR, name: new TextEncoder().encode("region") };
  assertEquals(writeDirectoryEntry(view, 0, 31, entry, 3), 0);
  assertEquals(hex(0, 8), "ee".repeat(8));
  assertEquals(writeDirectoryEntry(view, 0, 32, entry, 3), 32);
  const header = "0200000000000000" + "0300000000000000" + "06000000" + "08000000";
  assertEquals(hex(0, 33), header + "726567696f6e" + "0000" + "ee");
});
