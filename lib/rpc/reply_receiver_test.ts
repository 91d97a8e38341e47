import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ProtocolError } from "../backend/errors.ts";
import { contentChecksum } from "./checksum.ts";
import { ReplyReceiver, type ReplySink } from "./reply_receiver.ts";
import { encodeFrame, Frame, HEADER_BYTES } from "./wire.ts";

const PAYLOAD_MAX = 128 << 10;

/** Keeps what was received; payloads get buffers of their own. */
class Collector implements ReplySink {
  readonly replies: { id: number; payload: Uint8Array; checksum: number }[] = [];
  placed: Uint8Array[] = [];

  place(reply: Frame): Uint8Array {
    assert(reply.payloadLength > 0 && reply.payloadLength <= PAYLOAD_MAX);
    this.placed.push(new Uint8Array(reply.payloadLength));
    return this.placed.at(-1)!;
  }

  complete(reply: Frame, payload: Uint8Array, checksum: number): void {
    this.replies.push({ id: reply.id, payload, checksum });
  }
}

function stream(lengths: number[]): { bytes: Uint8Array; payloads: Uint8Array[] } {
  const payloads = lengths.map((length, index) => new Uint8Array(length).fill(index + 1));
  const parts = payloads.map((payload, id) => {
    const bytes = new Uint8Array(HEADER_BYTES + payload.length);
    const frame = new Frame().set(0x81, id, 0, payload.length);
    frame.payloadLength = payload.length;
    encodeFrame(new DataView(bytes.buffer), 0, frame);
    bytes.set(payload, HEADER_BYTES);
    return bytes;
  });
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) bytes.set(part, (at += part.length) - part.length);
  return { bytes, payloads };
}

/** Feeds bytes in pieces of the given sizes, again and again; answers how many reads went direct. */
function feed(
  receiver: ReplyReceiver,
  collector: Collector,
  bytes: Uint8Array,
  cuts: number[],
): number {
  let direct = 0;
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const target = receiver.target();
    assert(target.length > 0);
    if (collector.placed.at(-1)?.buffer === target.buffer) direct++;
    const count = Math.min(target.length, cuts[turn % cuts.length]!, bytes.length - at);
    target.set(bytes.subarray(at, at + count));
    receiver.received(count);
    at += count;
  }
  return direct;
}

Deno.test("ReplyReceiver gives whole replies however the stream is cut", () => {
  const lengths = fc.array(fc.oneof(fc.nat(200), fc.constantFrom(0, 16384, PAYLOAD_MAX)), {
    maxLength: 8,
  });
  const cuts = fc.array(fc.integer({ min: 1, max: 100_000 }), { minLength: 1, maxLength: 20 });
  fc.assert(fc.property(lengths, cuts, (list, sizes) => {
    const { bytes, payloads } = stream(list);
    const collector = new Collector();
    feed(new ReplyReceiver(collector, PAYLOAD_MAX), collector, bytes, sizes);
    const expected = payloads.map((payload, id) => ({
      ...{ id, payload, checksum: contentChecksum(payload) },
    }));
    assertEquals(collector.replies, expected);
  }));
});

Deno.test("ReplyReceiver has a large payload read right into its place", () => {
  const { bytes } = stream([PAYLOAD_MAX, PAYLOAD_MAX]);
  const collector = new Collector();
  const direct = feed(new ReplyReceiver(collector, PAYLOAD_MAX), collector, bytes, [1 << 20]);
  assertEquals([collector.replies.length, direct], [2, 2]);
});

Deno.test("ReplyReceiver throws nothing but ProtocolError on arbitrary bytes", () => {
  const cuts = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 5 });
  const changes = fc.array(fc.tuple(fc.nat(500), fc.nat(255)), { maxLength: 3 });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), cuts, changes, (tail, sizes, list) => {
      const { bytes } = stream([0, 100, 50]);
      const whole = new Uint8Array([...bytes, ...tail]);
      for (const [at, byte] of list) if (at < whole.length) whole[at] = byte;
      const collector = new Collector();
      try {
        feed(new ReplyReceiver(collector, PAYLOAD_MAX), collector, whole, sizes);
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
      }
    }),
    { numRuns: 1000 },
  );
});

Deno.test("ReplyReceiver asks for no place for a payload over the limit", () => {
  const { bytes } = stream([PAYLOAD_MAX]);
  const collector = new Collector();
  const receiver = new ReplyReceiver(collector, PAYLOAD_MAX - 1);
  assertThrows(() => feed(receiver, collector, bytes, [1000]), ProtocolError, "the limit is");
  assertEquals(collector.placed, []);
});
