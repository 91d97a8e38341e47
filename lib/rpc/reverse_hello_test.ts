import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ProtocolError } from "../backend/errors.ts";
import { encodeClientHello } from "./hello.ts";
import { commonVersion } from "./hello_prefix.ts";
import {
  decodeReverseAnswer,
  decodeReverseHello,
  encodeReverseAnswer,
  encodeReverseHello,
  encodeReverseRefusal,
  type ReverseHello,
  reverseHelloLength,
} from "./reverse_hello.ts";
import { LANE, LIMIT } from "./wire.ts";

const text = fc.string({ unit: "grapheme", maxLength: 60 });
const hellos: fc.Arbitrary<ReverseHello> = fc.record({ name: text, token: text }, {
  noNullPrototype: true,
});

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

Deno.test("decodeReverseHello() gives back what encodeReverseHello() took", () => {
  fc.assert(fc.property(hellos, (hello) => {
    const bytes = encodeReverseHello(hello);
    assertEquals(reverseHelloLength(viewOf(bytes), 0), bytes.length);
    assertEquals(commonVersion(viewOf(bytes), 0), 1);
    assertEquals(decodeReverseHello(bytes), hello);
  }));
});

Deno.test("an answer accepts, or refuses with a code and a text that is cut at the limit", () => {
  const answer = encodeReverseAnswer();
  assertEquals(reverseHelloLength(viewOf(answer), 0), answer.length);
  assertEquals(decodeReverseAnswer(answer), undefined);
  const refusal = { code: 13, message: "The token is wrong" };
  const bytes = encodeReverseRefusal(refusal);
  assertEquals(reverseHelloLength(viewOf(bytes), 0), bytes.length);
  assertEquals(decodeReverseAnswer(bytes), refusal);
  const long = decodeReverseAnswer(encodeReverseRefusal({ code: 2, message: "x".repeat(9999) }));
  assertEquals(long?.message.length, LIMIT.MESSAGE);
});

Deno.test("each field stands where the module says", () => {
  const bytes = [...encodeReverseHello({ name: "ab", token: "xyz" })];
  assertEquals(String.fromCharCode(...bytes.slice(0, 8)), "TELEMAPR");
  assertEquals(bytes.slice(8, 20), [25, 0, 0, 0, 1, 0, 1, 0, 2, 0, 3, 0]);
  assertEquals(String.fromCharCode(...bytes.slice(20)), "abxyz");
  assertEquals([...encodeReverseAnswer().subarray(8)], [16, 0, 0, 0, 1, 0, 0, 0]);
});

Deno.test("reverse hellos that were cut, grown or changed throw nothing but ProtocolError", () => {
  const wholes = fc.oneof(
    hellos.map(encodeReverseHello),
    fc.constantFrom(encodeReverseAnswer(), encodeReverseRefusal({ code: 5, message: "no" })),
  );
  const damage = fc.record({
    bits: fc.array(fc.nat(40 * 8), { maxLength: 4 }),
    length: fc.option(fc.integer({ min: 16, max: 200 })),
  });
  fc.assert(
    fc.property(wholes, damage, (whole, { bits, length }) => {
      const bytes = new Uint8Array(length ?? whole.length);
      bytes.set(whole.subarray(0, bytes.length));
      for (const bit of bits) if (bit >> 3 < bytes.length) bytes[bit >> 3]! ^= 1 << bit % 8;
      for (const decode of [decodeReverseHello, decodeReverseAnswer]) {
        try {
          if (reverseHelloLength(viewOf(bytes), 0) <= LIMIT.HELLO) decode(bytes);
        } catch (error) {
          if (!(error instanceof ProtocolError)) throw error;
        }
      }
    }),
    { numRuns: 3000 },
  );
});

Deno.test("a client's own hello, and one over the limit, are no reverse hello", () => {
  const client = encodeClientHello({
    ...{ features: 1, payloadMax: 65536, inFlightMax: 1, attempt: 1, lane: LANE.BULK },
    ...{ session: new Uint8Array(16), name: "", token: "" },
  });
  assertThrows(() => reverseHelloLength(viewOf(client), 0), ProtocolError, "does not speak");
  const bytes = encodeReverseHello({ name: "", token: "" });
  viewOf(bytes).setUint32(8, LIMIT.HELLO + 1, true);
  assertThrows(() => reverseHelloLength(viewOf(bytes), 0), ProtocolError, "the limit is 8192");
});

Deno.test("texts are taken up to their limits", () => {
  const longest = { name: "n".repeat(LIMIT.NAME), token: "t".repeat(LIMIT.TOKEN) };
  assertEquals(decodeReverseHello(encodeReverseHello(longest)), longest);
  const over = (change: Partial<ReverseHello>) => () =>
    encodeReverseHello({ ...longest, ...change });
  assertThrows(over({ name: "é".repeat(2049) }), RangeError, "name");
  assertThrows(over({ token: "t".repeat(1025) }), RangeError, "token");
  const bytes = new Uint8Array(20 + 1025);
  bytes.set(encodeReverseHello({ name: "", token: "" }));
  viewOf(bytes).setUint16(18, 1025, true);
  assertThrows(() => decodeReverseHello(bytes), ProtocolError, "too long");
});

Deno.test("a text that is not UTF-8, and a version that was not offered, are refused", () => {
  const hello = encodeReverseHello({ name: "a", token: "" });
  hello[20] = 0xff;
  assertThrows(() => decodeReverseHello(hello), ProtocolError, "not UTF-8");
  const answer = encodeReverseAnswer();
  answer[12] = 2;
  assertThrows(() => decodeReverseAnswer(answer), ProtocolError, "version is 2");
  assertThrows(
    () => decodeReverseAnswer(new Uint8Array([...encodeReverseAnswer(), 0])),
    ProtocolError,
    "size",
  );
});
