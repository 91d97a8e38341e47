import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { crc32 } from "node:zlib";
import { contentChecksum, headerChecksum } from "./checksum.ts";

Deno.test("headerChecksum() is the CRC-32 of zlib", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), fc.nat(10), (bytes, at) => {
    const buffer = new Uint8Array(bytes.length + at);
    buffer.set(bytes, at);
    const length = bytes.length & ~3;
    const view = new DataView(buffer.buffer);
    assertEquals(headerChecksum(view, at, length), crc32(bytes.subarray(0, length)));
  }));
});

Deno.test("contentChecksum() has the check value of CRC-32, also piece by piece", () => {
  const bytes = new TextEncoder().encode("123456789");
  assertEquals(contentChecksum(bytes), 0xcbf4_3926);
  assertEquals(
    contentChecksum(bytes.subarray(4), contentChecksum(bytes.subarray(0, 4))),
    0xcbf4_3926,
  );
});
