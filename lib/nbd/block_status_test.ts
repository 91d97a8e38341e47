import { assertEquals } from "@std/assert";
import type { Extent } from "../backend/backend.ts";
import { blockStatus } from "./block_status.ts";

/** Extents side by side: `d` is data, `z` a hole, `0` zeroes that are stored, `?` an unclear hole. */
function extents(kinds: string, length: number): Extent[] {
  return [...kinds].map((kind, index) => ({
    offset: index * length,
    length,
    hole: kind === "z" || kind === "?",
    zero: kind === "z" || kind === "0",
  }));
}

/** The lengths and flags in a payload. */
function decode(payload: Uint8Array): { id: number; runs: [number, number][] } {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  assertEquals((payload.length - 4) % 8, 0);
  const runs: [number, number][] = [];
  for (let at = 4; at < payload.length; at += 8) {
    runs.push([view.getUint32(at), view.getUint32(at + 4)]);
  }
  return { id: view.getUint32(0), runs };
}

Deno.test("blockStatus() writes each kind of extent", () => {
  const runs: [number, number][] = [[512, 0], [512, 3], [512, 2], [512, 1]];
  assertEquals(decode(blockStatus(7, extents("dz0?", 512), false)), { id: 7, runs });
});

Deno.test("blockStatus() joins neighbours of one kind", () => {
  assertEquals(decode(blockStatus(1, extents("ddzzzd", 100), false)).runs, [
    [200, 0],
    [300, 3],
    [100, 0],
  ]);
});

Deno.test("blockStatus() keeps the first run where one is asked for", () => {
  assertEquals(decode(blockStatus(1, extents("zzd", 100), true)).runs, [[200, 3]]);
  assertEquals(decode(blockStatus(1, extents("d", 100), true)).runs, [[100, 0]]);
});

Deno.test("blockStatus() carries runs of 2^31 bytes", () => {
  assertEquals(decode(blockStatus(0xffff_ffff, extents("z", 2 ** 31), false)), {
    id: 0xffff_ffff,
    runs: [[2 ** 31, 3]],
  });
});

Deno.test("blockStatus() stops at its limit of runs", () => {
  const { runs } = decode(blockStatus(1, extents("dz".repeat(40_000), 1), false));
  assertEquals(runs.length, 65_536);
  assertEquals(runs.at(-1), [1, 3]);
});
