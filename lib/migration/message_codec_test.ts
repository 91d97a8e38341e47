import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ProtocolError } from "../backend/errors.ts";
import { RangeList } from "../backend/range_list.ts";
import {
  decodeReply,
  decodeRequest,
  encodePiece,
  encodeReply,
  encodeRequest,
  PIECE_BYTES,
} from "./message_codec.ts";
import { MESSAGE_LIMIT, type SeederReply, type SeederRequest } from "./messages.ts";

const id = fc.uint8Array({ minLength: 16, maxLength: 16 });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const u53 = fc.oneof(
  fc.maxSafeNat(),
  fc.constantFrom(0, 0xffff_ffff, 0x1_0000_0000, Number.MAX_SAFE_INTEGER),
);
const milliseconds = fc.double({ min: 0, max: 1e9, noNaN: true }).map(Math.abs);
const chunkSize = fc.integer({ min: 1, max: 0xffff_ffff });
const ranges = fc.array(fc.tuple(fc.integer({ min: 1, max: 2 ** 30 }), fc.nat(2 ** 30)), {
  maxLength: 60,
}).map((pairs) => {
  const list = new RangeList();
  let at = 0;
  for (const [length, gap] of pairs) {
    list.add(at, at + length);
    at += length + gap + 1;
  }
  return list;
});

function record<Type extends string, Fields>(
  type: Type,
  fields: { [Key in keyof Fields]: fc.Arbitrary<Fields[Key]> },
): fc.Arbitrary<{ type: Type } & Fields> {
  return fc.record(fields).map((value) => ({ type, ...value }) as { type: Type } & Fields);
}

const requests: fc.Arbitrary<SeederRequest> = fc.oneof(
  record("track", { leech: id, chunkSize }),
  record("dirty", { leech: id, trackId: id, generation: u53 }),
  record("suspend", { leech: id, trackId: id, generation: u53, epoch: u53, timeout: u32 }),
  record("last", { leech: id, epoch: u53, index: u32 }),
  record("confirm", { leech: id, epoch: u53 }),
  record("outcome", { leech: id, epoch: u53 }),
  record("done", { leech: id, epoch: u53 }),
  record("cancel", { leech: id, epoch: u53 }),
  record("digests", { leech: id, chunk: u53, count: fc.integer({ min: 1, max: 4096 }) }),
  record("throttle", { leech: id, rate: u53, milliseconds: u32 }),
  record("root", { leech: id, epoch: u53 }),
);
const replies: fc.Arbitrary<SeederReply> = fc.oneof(
  record("tracked", { trackId: id, epoch: u53, size: u53, chunkSize, generation: u53 }),
  record("dirty", { generation: u53, ranges, more: fc.boolean(), written: u53 }),
  record("offer", {
    ...{ generation: u53, epoch: u53, ranges, more: fc.boolean() },
    ...{ prepareMs: milliseconds, suspendMs: milliseconds, flushMs: milliseconds },
  }),
  record("piece", { index: u53, content: fc.uint8Array({ maxLength: 300 }) }),
  record("outcome", {
    state: fc.constantFrom("serving", "offered", "given", "released"),
    ...{ epoch: u53, leech: id },
  }),
  record("digests", {
    chunk: u53,
    digests: fc.nat(20).chain((count) =>
      fc.uint8Array({ minLength: count * 16, maxLength: count * 16 })
    ),
  }),
  record("root", { root: fc.uint8Array({ minLength: 32, maxLength: 32 }) }),
);

/** The same with ranges as pairs, which can be compared. */
function comparable(message: SeederReply): unknown {
  return "ranges" in message ? { ...message, ranges: [...message.ranges] } : message;
}

/** Decodes what may be damaged: what comes out is well-formed, or it is a `ProtocolError`. */
function decodesOrRefuses(bytes: Uint8Array): void {
  const request = () => encodeRequest(decodeRequest(bytes));
  const reply = () => encodeReply(decodeReply(bytes));
  for (const again of [request, reply]) {
    try {
      // What was decoded is within every limit, and means these bytes and no others.
      assertEquals(again(), bytes);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
    }
  }
}

Deno.test("decodeRequest() gives back what encodeRequest() took", () => {
  fc.assert(fc.property(requests, (request) => {
    assertEquals(decodeRequest(encodeRequest(request)), request);
  }));
});

Deno.test("decodeReply() gives back what encodeReply() took", () => {
  fc.assert(fc.property(replies, (reply) => {
    assertEquals(comparable(decodeReply(encodeReply(reply))), comparable(reply));
  }));
});

Deno.test("messages are taken from the middle of a buffer", () => {
  fc.assert(fc.property(requests, replies, fc.nat(9), (request, reply, at) => {
    const placed = (bytes: Uint8Array) => {
      const whole = new Uint8Array(at + bytes.length + 5).fill(0xee);
      whole.set(bytes, at);
      return whole.subarray(at, at + bytes.length);
    };
    assertEquals(decodeRequest(placed(encodeRequest(request))), request);
    const decoded = decodeReply(placed(encodeReply(reply)));
    assertEquals(comparable(decoded), comparable(reply));
  }));
});

Deno.test("each field stands where the module says", () => {
  const leech = new Uint8Array(16).fill(0xaa), trackId = new Uint8Array(16).fill(0xbb);
  const suspend = encodeRequest({
    ...{ type: "suspend", leech, trackId, generation: 0x0201, epoch: 3, timeout: 0x0605 },
  });
  assertEquals([...suspend.subarray(0, 5)], [3, 3, 0, 0, 0xaa]);
  assertEquals([...suspend.subarray(19, 21), suspend[35]], [0xaa, 0xbb, 0xbb]);
  assertEquals([...suspend.subarray(36, 46)], [1, 2, 0, 0, 0, 0, 0, 0, 3, 0]);
  assertEquals([...suspend.subarray(52)], [5, 6, 0, 0]);
  const ranges = new RangeList();
  ranges.add(0x10, 0x12);
  const dirty = encodeReply({ type: "dirty", generation: 7, written: 8, ranges, more: true });
  assertEquals([...dirty.subarray(0, 5), dirty[12], dirty[20], dirty[24]], [
    3,
    2,
    0,
    0,
    7,
    8,
    1,
    1,
  ]);
  assertEquals([dirty[28], dirty[36], dirty.length], [0x10, 2, 44]);
});

Deno.test("messages that were cut, grown or changed are whole messages or a ProtocolError", () => {
  const messages = fc.oneof(requests.map(encodeRequest), replies.map(encodeReply));
  const damage = fc.record({
    bits: fc.array(fc.nat(120 * 8), { maxLength: 3 }),
    cut: fc.option(fc.nat(400)),
    tail: fc.uint8Array({ maxLength: 20 }),
  });
  fc.assert(
    fc.property(messages, damage, (message, { bits, cut, tail }) => {
      const kept = message.subarray(0, cut ?? message.length);
      const bytes = new Uint8Array([...kept, ...tail]);
      for (const bit of bits) if (bit >> 3 < bytes.length) bytes[bit >> 3]! ^= 1 << bit % 8;
      decodesOrRefuses(bytes);
    }),
    { numRuns: 5000 },
  );
});

Deno.test("every message that is cut is refused, but where its content is", () => {
  fc.assert(fc.property(requests.map(encodeRequest), (message) => {
    for (let length = 0; length < message.length; length++) {
      assertThrows(() => decodeRequest(message.subarray(0, length)), ProtocolError);
    }
  }));
  fc.assert(fc.property(replies, (reply) => {
    const message = encodeReply(reply);
    const open = reply.type === "piece" || reply.type === "digests";
    for (let length = 0; length < (open ? 12 : message.length); length++) {
      assertThrows(() => decodeReply(message.subarray(0, length)), ProtocolError);
    }
  }));
});

Deno.test("another version, and a type that is not known, are refused", () => {
  const message = encodeRequest({ type: "cancel", leech: new Uint8Array(16), epoch: 1 });
  for (const [at, value, why] of [[0, 0, "version is 0"], [0, 2, "version is 2"]] as const) {
    const other = message.slice();
    other[at] = value;
    assertThrows(() => decodeRequest(other), ProtocolError, why);
    assertThrows(() => decodeReply(other), ProtocolError, why);
  }
  for (const type of [0, 12, 255]) {
    const other = message.slice();
    other[1] = type;
    assertThrows(() => decodeRequest(other), ProtocolError, `no request ${type}`);
    assertThrows(() => decodeReply(other), ProtocolError, `no reply ${type}`);
  }
});

Deno.test("as many ranges, digests and bytes are taken as there may be, and no more", () => {
  const list = (count: number) => {
    const ranges = new RangeList();
    for (let index = 0; index < count; index++) ranges.add(index * 2, index * 2 + 1);
    return ranges;
  };
  const dirty = (count: number): SeederReply => ({
    ...{ type: "dirty", generation: 1, written: 1, more: true, ranges: list(count) },
  });
  const most = decodeReply(encodeReply(dirty(MESSAGE_LIMIT.RANGES)));
  assert(most.type === "dirty" && most.ranges.count === MESSAGE_LIMIT.RANGES);
  assertThrows(() => encodeReply(dirty(MESSAGE_LIMIT.RANGES + 1)), RangeError, "4097 ranges");
  const more = new Uint8Array([...encodeReply(dirty(4096)), ...new Uint8Array(16)]);
  new DataView(more.buffer).setUint32(24, 4097, true);
  new DataView(more.buffer).setUint32(28 + 4096 * 16, 9000, true);
  new DataView(more.buffer).setUint32(28 + 4096 * 16 + 8, 1, true);
  assertThrows(() => decodeReply(more), ProtocolError, "4097 ranges");
  const piece = (length: number): SeederReply => ({
    ...{ type: "piece", index: 0, content: new Uint8Array(length) },
  });
  const whole = encodeReply(piece(MESSAGE_LIMIT.PIECE));
  assertEquals(encodePiece(0, MESSAGE_LIMIT.PIECE).message, whole);
  assertThrows(() => encodePiece(0, MESSAGE_LIMIT.PIECE + 1), RangeError);
  const room = new Uint8Array(PIECE_BYTES + 100).subarray(50);
  const { message, content } = encodePiece(0, MESSAGE_LIMIT.PIECE, room);
  assertEquals([message, content.length], [whole, MESSAGE_LIMIT.PIECE]);
  assertEquals([message.buffer, content.buffer], [room.buffer, room.buffer]);
  assertEquals(decodeReply(whole), piece(MESSAGE_LIMIT.PIECE));
  assertThrows(() => encodeReply(piece(MESSAGE_LIMIT.PIECE + 1)), RangeError);
  assertThrows(() => decodeReply(new Uint8Array([...whole, 0])), ProtocolError, "1048577 bytes");
  const digests = (count: number): SeederReply => ({
    ...{ type: "digests", chunk: 0, digests: new Uint8Array(count * 16) },
  });
  const all = encodeReply(digests(4096));
  assertEquals(decodeReply(all), digests(4096));
  assertThrows(() => encodeReply(digests(4097)), RangeError);
  assertThrows(
    () => decodeReply(new Uint8Array([...all, ...new Uint8Array(16)])),
    ProtocolError,
    "65552 bytes",
  );
  assertThrows(() => decodeReply(all.subarray(0, 20)), ProtocolError, "a digest is cut");
  const leech = new Uint8Array(16);
  for (const count of [0, 4097]) {
    assertThrows(() => encodeRequest({ type: "digests", leech, chunk: 0, count }), RangeError);
  }
});

Deno.test("a number of ranges that are not there is refused before any are made", () => {
  const empty = encodeReply({
    ...{ type: "dirty", generation: 1, written: 1, more: false, ranges: new RangeList() },
  });
  for (const [count, why] of [[0xffff_ffff, "4294967295 ranges"], [4096, "too short"]] as const) {
    new DataView(empty.buffer).setUint32(24, count, true);
    assertThrows(() => decodeReply(empty), ProtocolError, why);
  }
});

Deno.test("more is yes or no", () => {
  const message = encodeReply({
    ...{ type: "dirty", generation: 1, written: 1, more: true, ranges: new RangeList() },
  });
  message[20] = 2;
  assertThrows(() => decodeReply(message), ProtocolError, "neither 0 nor 1");
});

Deno.test("ranges that are empty, touch, overlap, go back or end beyond 2^53 are refused", () => {
  const two = new RangeList();
  two.add(10, 20);
  two.add(30, 40);
  const message = encodeReply({
    ...{ type: "dirty", generation: 1, written: 1, more: false, ranges: two },
  });
  const refused = (at: number, value: number) => {
    const changed = message.slice();
    const view = new DataView(changed.buffer);
    view.setUint32(at, value, true);
    view.setUint32(at + 4, value / 2 ** 32, true);
    assertThrows(() => decodeReply(changed), ProtocolError, "ranges");
  };
  const first = 28, second = 44;
  refused(first + 8, 0);
  refused(second + 8, 0);
  refused(second, 20);
  refused(second, 15);
  refused(second, 5);
  refused(second + 8, Number.MAX_SAFE_INTEGER - 29);
});

Deno.test("what no message can carry is a RangeError", () => {
  const leech = new Uint8Array(16);
  const wrong: SeederRequest[] = [
    { type: "cancel", leech: new Uint8Array(15), epoch: 1 },
    { type: "confirm", leech, epoch: -1 },
    { type: "confirm", leech, epoch: 2 ** 53 },
    { type: "confirm", leech, epoch: 0.5 },
    { type: "track", leech, chunkSize: 2 ** 32 },
    { type: "dirty", leech, trackId: new Uint8Array(17), generation: 0 },
  ];
  for (const request of wrong) assertThrows(() => encodeRequest(request), RangeError);
  for (const suspendMs of [NaN, -1, Infinity]) {
    const reply: SeederReply = {
      ...{ type: "offer", generation: 1, epoch: 1, ranges: new RangeList(), more: false },
      ...{ prepareMs: 0, suspendMs, flushMs: 0 },
    };
    assertThrows(() => encodeReply(reply), RangeError, "ms");
  }
});

Deno.test("times that are no times and chunks of no bytes are refused", () => {
  const offer = encodeReply({
    ...{ type: "offer", generation: 1, epoch: 1, ranges: new RangeList(), more: false },
    ...{ prepareMs: 1, suspendMs: 1, flushMs: 1 },
  });
  for (const value of [NaN, -1, Infinity]) {
    const changed = offer.slice();
    new DataView(changed.buffer).setFloat64(20, value, true);
    assertThrows(() => decodeReply(changed), ProtocolError, "a time is");
  }
  const track = encodeRequest({ type: "track", leech: new Uint8Array(16), chunkSize: 1 });
  track[20] = 0;
  assertThrows(() => decodeRequest(track), ProtocolError, "chunks are empty");
});
