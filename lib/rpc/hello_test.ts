import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ProtocolError } from "../backend/errors.ts";
import {
  type ClientHello,
  decodeClientHello,
  decodeServerHello,
  encodeClientHello,
  encodeRefusal,
  encodeServerHello,
  helloLength,
  type ServerHello,
} from "./hello.ts";
import { commonVersion } from "./hello_prefix.ts";
import { FEATURE, LANE, LIMIT } from "./wire.ts";

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const id = fc.uint8Array({ minLength: 16, maxLength: 16 });
const text = fc.string({ unit: "grapheme", maxLength: 40 });
const clientHellos: fc.Arbitrary<ClientHello> = fc.record({
  ...{ features: u32, payloadMax: u32, inFlightMax: u32, attempt: u32 },
  ...{ session: id, name: text, token: text },
  lane: fc.constantFrom(LANE.URGENT, LANE.BULK),
}, { noNullPrototype: true });
const serverHellos: fc.Arbitrary<ServerHello> = fc.record({
  version: fc.constant(1),
  features: u32.map((bits) => (bits | FEATURE.CRC32) >>> 0),
  payloadMax: fc.integer({ min: LIMIT.PAYLOAD_MIN, max: LIMIT.PAYLOAD_MAX }),
  inFlightMax: fc.integer({ min: LIMIT.IN_FLIGHT_MIN, max: LIMIT.IN_FLIGHT_MAX }),
  blockSize: fc.integer({ min: 1, max: LIMIT.PAYLOAD_MIN }),
  size: fc.maxSafeNat(),
  ...{ region: id, instance: id, readOnly: fc.boolean(), durable: fc.boolean() },
}, { noNullPrototype: true });
const CLIENT: ClientHello = {
  ...{ features: 1, payloadMax: 65536, inFlightMax: 1, attempt: 1, lane: LANE.BULK },
  ...{ session: new Uint8Array(16), name: "a", token: "b" },
};
const SERVER: ServerHello = {
  ...{ version: 1, features: 1, payloadMax: 65536, inFlightMax: 1, blockSize: 1, size: 1 },
  ...{ region: new Uint8Array(16), instance: new Uint8Array(16), readOnly: true, durable: false },
};

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

Deno.test("decodeClientHello() gives back what encodeClientHello() took", () => {
  fc.assert(fc.property(clientHellos, (hello) => {
    const bytes = encodeClientHello(hello);
    assertEquals(helloLength(viewOf(bytes), 0), bytes.length);
    assertEquals(commonVersion(viewOf(bytes), 0), 1);
    assertEquals(decodeClientHello(bytes), hello);
  }));
});

Deno.test("decodeServerHello() gives back what encodeServerHello() took", () => {
  fc.assert(fc.property(serverHellos, (hello) => {
    const bytes = encodeServerHello(hello);
    assertEquals(helloLength(viewOf(bytes), 0), bytes.length);
    assertEquals(decodeServerHello(bytes), hello);
  }));
});

Deno.test("decodeServerHello() gives back a refusal, its text cut at the limit", () => {
  const refusal = { code: 13, message: "The token is wrong" };
  assertEquals(decodeServerHello(encodeRefusal(refusal)), refusal);
  const long = decodeServerHello(encodeRefusal({ code: 2, message: "x".repeat(9999) }));
  assert("message" in long && long.message.length === LIMIT.MESSAGE);
});

Deno.test("hellos that were cut, grown or changed throw nothing but ProtocolError", () => {
  const changes = fc.array(fc.tuple(fc.nat(90), fc.nat(255)), { maxLength: 4 });
  const wholes = fc.constantFrom(encodeClientHello(CLIENT), encodeServerHello(SERVER));
  fc.assert(
    fc.property(wholes, changes, fc.nat(120), (whole, list, length) => {
      const bytes = new Uint8Array(Math.max(length, 16));
      bytes.set(whole.subarray(0, bytes.length));
      for (const [at, byte] of list) if (at < bytes.length) bytes[at] = byte;
      for (const decode of [decodeClientHello, decodeServerHello]) {
        try {
          assert(helloLength(viewOf(bytes), 0) <= LIMIT.HELLO);
          decode(bytes);
        } catch (error) {
          if (!(error instanceof ProtocolError)) throw error;
        }
      }
    }),
    { numRuns: 2000 },
  );
});

Deno.test("helloLength() refuses another protocol and a hello over the limit", () => {
  const http = new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n");
  assertThrows(() => helloLength(viewOf(http), 0), ProtocolError, "does not speak");
  const bytes = encodeClientHello(CLIENT);
  viewOf(bytes).setUint32(8, LIMIT.HELLO, true);
  assertEquals(helloLength(viewOf(bytes), 0), LIMIT.HELLO);
  viewOf(bytes).setUint32(8, LIMIT.HELLO + 1, true);
  assertThrows(() => helloLength(viewOf(bytes), 0), ProtocolError, "the limit is 8192");
  viewOf(bytes).setUint32(8, 15, true);
  assertThrows(() => helloLength(viewOf(bytes), 0), ProtocolError, "15 bytes");
});

Deno.test("commonVersion() finds the highest version of both, or none", () => {
  const bytes = encodeClientHello(CLIENT);
  for (
    const [min, max, common] of [[1, 1, 1], [0, 9, 1], [2, 9, 0], [0, 0, 0], [5, 1, 0]] as const
  ) {
    viewOf(bytes).setUint16(12, min, true);
    viewOf(bytes).setUint16(14, max, true);
    assertEquals(commonVersion(viewOf(bytes), 0), common);
  }
});

Deno.test("encodeClientHello() takes texts up to their limits", () => {
  const longest = { ...CLIENT, name: "n".repeat(LIMIT.NAME), token: "t".repeat(LIMIT.TOKEN) };
  assertEquals(decodeClientHello(encodeClientHello(longest)), longest);
  assertThrows(() => encodeClientHello({ ...longest, name: "é".repeat(2049) }), RangeError, "name");
  assertThrows(
    () => encodeClientHello({ ...longest, token: "t".repeat(1025) }),
    RangeError,
    "token",
  );
});

Deno.test("decodeServerHello() refuses limits that a client must not take", () => {
  const refuse = (change: Partial<ServerHello>, why: string) => {
    const bytes = encodeServerHello({ ...SERVER, ...change });
    assertThrows(() => decodeServerHello(bytes), ProtocolError, why);
  };
  refuse({ payloadMax: LIMIT.PAYLOAD_MIN - 1 }, "largest payload");
  refuse({ payloadMax: LIMIT.PAYLOAD_MAX + 1 }, "largest payload");
  refuse({ inFlightMax: 0 }, "in flight");
  refuse({ inFlightMax: LIMIT.IN_FLIGHT_MAX + 1 }, "in flight");
  refuse({ blockSize: 0 }, "block size");
  refuse({ blockSize: 65537 }, "block size");
  refuse({ features: FEATURE.ZSTD }, "checksum");
  refuse({ version: 2 }, "version is 2");
});

Deno.test("decodeClientHello() refuses a lane that is none, and a text that is not UTF-8", () => {
  const bytes = encodeClientHello(CLIENT);
  viewOf(bytes).setUint16(28, 3, true);
  assertThrows(() => decodeClientHello(bytes), ProtocolError, "its lane is 3");
  const other = encodeClientHello(CLIENT);
  other[56] = 0xff;
  assertThrows(() => decodeClientHello(other), ProtocolError, "not UTF-8");
});
