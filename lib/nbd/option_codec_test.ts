import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ProtocolError, UsageError } from "../backend/errors.ts";
import { HANDSHAKE, INFO, OPTION, REPLY } from "./constants.ts";
import * as codec from "./option_codec.ts";

const plain = { noNullPrototype: true };
const u16 = fc.nat(0xffff);
const u32 = fc.nat(0xffff_ffff);
const size = fc.nat(Number.MAX_SAFE_INTEGER);
const text = fc.string({ unit: "grapheme", maxLength: 40 }).filter((s) => !s.includes("\0"));
const bytes = (maxLength: number) => fc.uint8Array({ maxLength });

function hex(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text.match(/\w\w/g) ?? [], (byte) => parseInt(byte, 16));
}

Deno.test("encodeGreeting() and decodeGreeting() follow the specification", () => {
  const greeting = hex("4e42444d41474943 49484156454f5054 0003");
  assertEquals(codec.encodeGreeting(HANDSHAKE.FIXED_NEWSTYLE | HANDSHAKE.NO_ZEROES), greeting);
  assertEquals(codec.decodeGreeting(greeting), 3);
  const oldstyle = hex("4e42444d41474943 0000420281861253 0000");
  assertStringIncludes(
    assertThrows(() => codec.decodeGreeting(oldstyle), ProtocolError).message,
    "oldstyle",
  );
  const http = new TextEncoder().encode("HTTP/1.1 400 Bad R");
  assertThrows(() => codec.decodeGreeting(http), ProtocolError, "not an NBD server");
});

Deno.test("decodeClientFlags() refuses what was not offered", () => {
  assertEquals(codec.decodeClientFlags(codec.encodeClientFlags(3)), 3);
  assertThrows(() => codec.decodeClientFlags(codec.encodeClientFlags(4)), ProtocolError);
  assertThrows(() => codec.decodeClientFlags(codec.encodeClientFlags(0x8000_0000)), ProtocolError);
  assertThrows(() => codec.decodeClientFlags(codec.encodeClientFlags(2), 1), ProtocolError);
});

Deno.test("encodeOption() and encodeOptionReply() follow the specification", () => {
  const request = codec.encodeInfoRequest({ name: "ab", infos: [INFO.BLOCK_SIZE] });
  assertEquals(request, hex("00000002 6162 0001 0003"));
  assertEquals(
    codec.encodeOption(OPTION.GO, request),
    hex("49484156454f5054 00000007 0000000a 00000002 6162 0001 0003"),
  );
  assertEquals(
    codec.encodeOptionReply(OPTION.LIST, REPLY.ERR_POLICY),
    hex("0003e889045565a9 00000003 80000002 00000000"),
  );
});

Deno.test("decodeInfo() refuses sizes and block sizes that cannot be", () => {
  assertEquals(codec.decodeInfo(hex("0000 001fffffffffffff 0001")), {
    kind: "export",
    size: Number.MAX_SAFE_INTEGER,
    flags: 1,
  });
  for (const bad of ["0020000000000000", "ffffffffffffffff"]) {
    assertThrows(() => codec.decodeInfo(hex(`0000 ${bad} 0001`)), ProtocolError, "2^53");
  }
  const blockSizes = (minimum: number, preferred: number, maximum: number) => () =>
    codec.decodeInfo(codec.encodeInfo({ kind: "block size", minimum, preferred, maximum }));
  blockSizes(1, 4096, 0xffff_ffff)();
  blockSizes(65536, 65536, 65536)();
  assertThrows(blockSizes(0, 4096, 4096), ProtocolError);
  assertThrows(blockSizes(3, 4096, 4096), ProtocolError);
  assertThrows(blockSizes(131072, 131072, 1 << 25), ProtocolError);
  assertThrows(blockSizes(4096, 512, 1 << 25), ProtocolError);
  assertThrows(blockSizes(4096, 4096, 4095), ProtocolError);
});

Deno.test("decoders refuse lengths that do not agree with the message", () => {
  const bad = [
    () => codec.decodeInfoRequest(hex("ffffffff 6162 0000")),
    () => codec.decodeInfoRequest(hex("00000003 6162 0000")),
    () => codec.decodeInfoRequest(hex("00000002 6162 0001")),
    () => codec.decodeInfoRequest(hex("00000002 6162 0000 00")),
    () => codec.decodeServerReply(hex("00000003 6162")),
    () => codec.decodeMetaContextRequest(hex("00000000 ffffffff 00000000")),
    () => codec.decodeMetaContextRequest(hex("00000000 00000001 00000001")),
    () => codec.decodeMetaContextRequest(hex("00000000 00000000 00")),
    () => codec.decodeInfo(hex("0000 0000000000001000 0001 00")),
    () => codec.decodeInfo(hex("0003 00000001 00001000 0200000000")),
    () => codec.decodeOptionHeader(hex("49484156454f5055 00000007 00000000")),
    () => codec.decodeOptionReplyHeader(hex("0003e889045565a8 00000007 00000001 00000000")),
  ];
  for (const decode of bad) assertThrows(decode, ProtocolError, undefined, `${decode}`);
});

Deno.test("strings are UTF-8 of at most 4096 bytes without NUL, both ways", () => {
  assertEquals(codec.decodeText(codec.encodeText("ü".repeat(2048))).length, 2048);
  assertThrows(() => codec.encodeText("ü".repeat(2048) + "x"), UsageError);
  assertThrows(() => codec.encodeText("a\0b"), UsageError);
  assertThrows(() => codec.encodeText("\ud800"), UsageError);
  assertThrows(() => codec.decodeText(new Uint8Array(4097).fill(65)), ProtocolError, "4097");
  assertThrows(() => codec.decodeText(hex("61 00")), ProtocolError, "NUL");
  assertThrows(() => codec.decodeText(hex("c3 28")), ProtocolError, "UTF-8");
  assertThrows(() => codec.decodeServerReply(hex("00000001 ff 61")), ProtocolError, "UTF-8");
});

Deno.test("encodeExportNameReply() adds 124 zeroes where they are due", () => {
  const info = { size: 2 ** 40 + 5, flags: 0x0103 };
  assertEquals(codec.encodeExportNameReply(info, false), hex("0000010000000005 0103"));
  const padded = codec.encodeExportNameReply(info, true);
  assertEquals(padded.length, 10 + 124);
  assertEquals(codec.decodeExportNameReply(padded.subarray(0, 10)), info);
});

Deno.test("every decoder reads what its encoder wrote", () => {
  const roundTrip = <T>(
    values: fc.Arbitrary<T>,
    write: (v: T) => Uint8Array,
    read: (b: Uint8Array) => T,
  ) => fc.assert(fc.property(values, (value) => assertEquals(read(write(value)), value)));

  roundTrip(u16, codec.encodeGreeting, codec.decodeGreeting);
  roundTrip(text, codec.encodeText, codec.decodeText);
  roundTrip(
    fc.record({ name: text, infos: fc.array(u16) }, plain),
    codec.encodeInfoRequest,
    codec.decodeInfoRequest,
  );
  roundTrip(
    fc.record({ name: text, description: text }, plain),
    codec.encodeServerReply,
    codec.decodeServerReply,
  );
  roundTrip(
    fc.record({ name: text, queries: fc.array(text) }, plain),
    codec.encodeMetaContextRequest,
    codec.decodeMetaContextRequest,
  );
  roundTrip(
    fc.record({ id: u32, name: text }, plain),
    codec.encodeMetaContext,
    codec.decodeMetaContext,
  );
  roundTrip(
    fc.record({ size, flags: u16 }, plain),
    (info) => codec.encodeExportNameReply(info, false),
    codec.decodeExportNameReply,
  );
  roundTrip<codec.Info>(
    fc.oneof(
      fc.record({ kind: fc.constant("export" as const), size, flags: u16 }, plain),
      fc.record({ kind: fc.constantFrom("name" as const, "description" as const), text }, plain),
      fc.record({
        kind: fc.constant("unknown" as const),
        type: fc.integer({ min: 4, max: 0xffff }),
        payload: bytes(20),
      }, plain),
    ),
    codec.encodeInfo,
    codec.decodeInfo,
  );
  fc.assert(fc.property(u32, u32, bytes(64), (option, type, data) => {
    const request = codec.encodeOption(option, data);
    assertEquals(codec.decodeOptionHeader(request.subarray(0, 16)), {
      option,
      length: data.length,
    });
    assertEquals(request.subarray(16), data);
    const reply = codec.encodeOptionReply(option, type, data);
    const header = { option, type, length: data.length };
    assertEquals(codec.decodeOptionReplyHeader(reply.subarray(0, 20)), header);
    assertEquals(reply.subarray(20), data);
  }));
});

Deno.test("decoders throw nothing but ProtocolError", () => {
  const decoders = [
    codec.decodeGreeting,
    codec.decodeClientFlags,
    codec.decodeOptionHeader,
    codec.decodeOptionReplyHeader,
    codec.decodeText,
    codec.decodeInfoRequest,
    codec.decodeServerReply,
    codec.decodeInfo,
    codec.decodeExportNameReply,
    codec.decodeMetaContextRequest,
    codec.decodeMetaContext,
  ];
  const length = fc.constantFrom(0, 1, 2, 3, 4, 0x7fff_ffff, 0x8000_0000, 0xffff_fffb, 0xffff_ffff);
  const withLengths = fc.tuple(length, bytes(12), length, bytes(12)).map(([a, head, b, tail]) => {
    const data = new Uint8Array(8 + head.length + tail.length);
    const view = new DataView(data.buffer);
    view.setUint32(0, a);
    data.set(head, 4);
    view.setUint32(4 + head.length, b);
    data.set(tail, 8 + head.length);
    return data;
  });
  fc.assert(
    fc.property(fc.constantFrom(...decoders), fc.oneof(bytes(64), withLengths), (decode, data) => {
      try {
        decode(data);
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
      }
    }),
    { numRuns: 5000 },
  );
});
