import { assert, assertEquals } from "@std/assert";
import { zstdCompressSync } from "node:zlib";
import { compress, COMPRESSIBLE_BYTES, CompressionChoice, decompress } from "./compression.ts";

const SIZE = 1 << 20;

Deno.test("decompress() gives back what compress() took", () => {
  const content = new Uint8Array(SIZE).map((_, index) => index % 251);
  const packed = compress(content);
  assert(packed !== undefined && packed.length < SIZE / 8);
  assertEquals(new Uint8Array(decompress(packed, SIZE)!), content);
});

Deno.test("compress() leaves alone what is short or does not shrink", () => {
  assertEquals(compress(new Uint8Array(COMPRESSIBLE_BYTES - 1)), undefined);
  const random = new Uint8Array(65536);
  assertEquals(compress(crypto.getRandomValues(random)), undefined);
});

Deno.test("decompress() refuses what is damaged, or of another size than announced", () => {
  const packed = zstdCompressSync(new Uint8Array(SIZE));
  assertEquals(decompress(packed, SIZE - 1), undefined);
  assertEquals(decompress(packed, SIZE + 1), undefined);
  assertEquals(decompress(packed.subarray(0, 5), SIZE), undefined);
  assertEquals(decompress(new Uint8Array(100).fill(7), 100), undefined);
  assertEquals(decompress(new Uint8Array(0), 100), undefined);
});

Deno.test("decompress() of a bomb does not grow", () => {
  const bomb = zstdCompressSync(new Uint8Array(64 << 20));
  const before = Deno.memoryUsage().rss;
  for (let round = 0; round < 20; round++) assertEquals(decompress(bomb, 4096), undefined);
  const grown = Deno.memoryUsage().rss - before;
  assert(grown < 64 << 20, `the process grew by ${grown} bytes`);
});

/** Sends contents over a link and counts how many were compressed; rates in bytes a ms. */
function send(choice: CompressionChoice, count: number, link: number, ratio: number): number {
  const zstd = 500e3;
  let compressed = 0;
  for (let index = 0; index < count; index++) {
    const packed = choice.choose(SIZE);
    if (packed) compressed++;
    choice.observe(packed, SIZE, packed ? SIZE / zstd + SIZE / ratio / link : SIZE / link);
  }
  return compressed;
}

Deno.test("CompressionChoice compresses on a slow link what shrinks", () => {
  const compressed = send(new CompressionChoice("auto"), 1000, 10e3, 3);
  assert(compressed > 950, `${compressed} of 1000`);
});

Deno.test("CompressionChoice does not judge by the first use of zstd, which is slow", () => {
  const choice = new CompressionChoice("auto");
  let compressed = 0;
  for (let index = 0; index < 32; index++) {
    const packed = choice.choose(SIZE);
    const slow = packed && compressed++ === 0;
    choice.observe(packed, SIZE, slow ? 100 : packed ? 3 : 10);
  }
  assert(compressed > 12, `${compressed} of 32`);
});

Deno.test("CompressionChoice seldom tries what does not shrink", () => {
  const compressed = send(new CompressionChoice("auto"), 10_000, 10e3, 1);
  assert(compressed >= 1 && compressed < 50, `${compressed} of 10000`);
});

Deno.test("CompressionChoice never compresses on a link that is faster than zstd", () => {
  assertEquals(send(new CompressionChoice("auto"), 10_000, 3e6, 4), 0);
});

Deno.test("CompressionChoice follows a link that changes", () => {
  const choice = new CompressionChoice("auto");
  send(choice, 1000, 10e3, 3);
  assert(send(choice, 2000, 3e6, 3) < 200);
  assert(send(choice, 2000, 10e3, 3) > 1500);
});

Deno.test("CompressionChoice does as it is told", () => {
  assertEquals(send(new CompressionChoice("off"), 100, 1e3, 10), 0);
  assertEquals(send(new CompressionChoice("always"), 100, 3e6, 1), 100);
  assertEquals(new CompressionChoice("always").choose(COMPRESSIBLE_BYTES - 1), false);
});
