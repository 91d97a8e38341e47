import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ProtocolError } from "../backend/errors.ts";
import {
  codeOf,
  decodeExtents,
  decodeFrame,
  decodeMessage,
  encodeExtents,
  encodeFrame,
  encodeMessage,
  EXTENTS_BYTES_MAX,
  Frame,
  getSafeInteger,
  HEADER_BYTES,
  LIMIT,
  nameOfCode,
  setSafeInteger,
} from "./wire.ts";

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const u53 = fc.oneof(
  fc.maxSafeNat(),
  fc.constantFrom(0, 0xffff_ffff, 0x1_0000_0000, Number.MAX_SAFE_INTEGER),
);
const frames = fc.record({
  payloadLength: fc.nat(LIMIT.PAYLOAD_MAX),
  type: fc.nat(0xff),
  flags: fc.nat(0xff),
  code: fc.nat(0xffff),
  id: u32,
  checksum: u32,
  offset: u53,
  length: u53,
}).map((fields) => Object.assign(new Frame(), fields));

function encoded(frame: Frame): DataView<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(HEADER_BYTES));
  encodeFrame(view, 0, frame);
  return view;
}

function decoded(view: DataView, payloadMax: number = LIMIT.PAYLOAD_MAX): Frame {
  const frame = new Frame();
  decodeFrame(view, 0, frame, payloadMax);
  return frame;
}

Deno.test("decodeFrame() gives back what encodeFrame() took, and neither writes beside it", () => {
  fc.assert(fc.property(frames, fc.nat(40), (frame, at) => {
    const bytes = new Uint8Array(HEADER_BYTES + 80).fill(0xee);
    const view = new DataView(bytes.buffer);
    encodeFrame(view, at, frame);
    const copy = new Frame();
    decodeFrame(view, at, copy, LIMIT.PAYLOAD_MAX);
    assertEquals(copy, frame);
    assertEquals(bytes.subarray(0, at), new Uint8Array(at).fill(0xee));
    assertEquals(bytes.subarray(at + 40), new Uint8Array(80 - at).fill(0xee));
  }));
});

Deno.test("encodeFrame() puts each field where the module says", () => {
  const frame = Object.assign(new Frame(), {
    ...{ payloadLength: 0x0003_0201, type: 4, flags: 5, code: 0x0706, id: 0x0b0a_0908 },
    ...{ checksum: 0x0f0e_0d0c, offset: 0x0014_1312_1110, length: 0x0024_2322_2120 },
  });
  const bytes = [...new Uint8Array(encoded(frame).buffer)];
  assertEquals(bytes.slice(0, 16), [1, 2, 3, 0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
  assertEquals(bytes.slice(16, 24), [16, 17, 18, 19, 20, 0, 0, 0]);
  assertEquals(bytes.slice(24, 36), [32, 33, 34, 35, 36, 0, 0, 0, 0, 0, 0, 0]);
});

Deno.test("decodeFrame() refuses a header with any bits flipped", () => {
  const damage = fc.array(fc.nat(HEADER_BYTES * 8 - 1), { minLength: 1, maxLength: 3 });
  fc.assert(fc.property(frames, damage, (frame, bits) => {
    const view = encoded(frame);
    for (const bit of new Set(bits)) {
      view.setUint8(bit >> 3, view.getUint8(bit >> 3) ^ 1 << bit % 8);
    }
    assertThrows(() => decoded(view), ProtocolError);
  }));
});

Deno.test("decodeFrame() takes a payload at the limit and refuses one over it", () => {
  const frame = Object.assign(new Frame(), { payloadLength: 65536 });
  assertEquals(decoded(encoded(frame), 65536).payloadLength, 65536);
  assertThrows(() => decoded(encoded(frame), 65535), ProtocolError, "the limit is 65535");
});

Deno.test("getSafeInteger() takes 2^53 - 1 and refuses 2^53", () => {
  const view = new DataView(new ArrayBuffer(8));
  setSafeInteger(view, 0, Number.MAX_SAFE_INTEGER);
  assertEquals(getSafeInteger(view, 0), Number.MAX_SAFE_INTEGER);
  setSafeInteger(view, 0, 2 ** 53);
  assertThrows(() => getSafeInteger(view, 0), ProtocolError, "over 2^53 - 1");
});

Deno.test("decodeExtents() gives back what encodeExtents() took", () => {
  const runs = fc.array(
    fc.record({
      length: fc.integer({ min: 1, max: 2 ** 40 }),
      hole: fc.boolean(),
      zero: fc.boolean(),
    }),
    { maxLength: 50 },
  );
  fc.assert(fc.property(runs, fc.nat(2 ** 40), (list, offset) => {
    let at = offset;
    const extents = list.map((run) => ({ ...run, offset: (at += run.length) - run.length }));
    assertEquals(decodeExtents(encodeExtents(extents), offset, at - offset), extents);
  }));
});

Deno.test("decodeExtents() throws nothing but ProtocolError on arbitrary bytes", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), fc.nat(100), (bytes, length) => {
    try {
      const extents = decodeExtents(bytes, 7, length);
      assertEquals(extents.reduce((sum, extent) => sum + extent.length, 0), length);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
    }
  }));
  const tooMany = new Uint8Array(EXTENTS_BYTES_MAX + 16);
  assertThrows(() => decodeExtents(tooMany, 0, 1), ProtocolError, "size");
});

Deno.test("encodeMessage() cuts a long text between characters", () => {
  const bytes = encodeMessage("é".repeat(LIMIT.MESSAGE) + "!");
  assertEquals(decodeMessage(bytes), "é".repeat(LIMIT.MESSAGE / 2));
  assertEquals(decodeMessage(encodeMessage("x" + "é".repeat(LIMIT.MESSAGE))).length, 512);
});

Deno.test("decodeMessage() lets no control character through", () => {
  assertEquals(decodeMessage(new TextEncoder().encode("a\x1b[31m\nb\x9b")), "a [31m b ");
});

Deno.test("codeOf() and nameOfCode() agree, and an unknown name is EIO", () => {
  assertEquals(nameOfCode(codeOf("ENOSPC")), "ENOSPC");
  assertEquals(codeOf("ENOSPC"), 28);
  assertEquals(codeOf("toString"), 5);
});
