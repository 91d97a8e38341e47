import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { IntegrityError, UsageError } from "../backend/errors.ts";
import { decodeHead, encodeHead, HEAD_BYTES, type InstanceHead } from "./instance_head.ts";

const heads: fc.Arbitrary<InstanceHead> = fc.record({
  memoryBytes: fc.nat(65536).map((pages) => pages * 65536),
  globals: fc.array(
    fc.tuple(fc.string(), fc.oneof(fc.double(), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n }))),
    { maxLength: 20 },
  ).map((entries) => new Map(entries)),
  // JSON has no -0.
  state: fc.jsonValue().map((value) => JSON.parse(JSON.stringify(value))),
}, { noNullPrototype: true });

Deno.test("a head is what it was made of, whatever lies behind it", () => {
  fc.assert(fc.property(heads, fc.nat(255), (head, rest) => {
    const region = new Uint8Array(HEAD_BYTES).fill(rest);
    region.set(encodeHead(head));
    assertEquals(decodeHead(region), head);
  }));
});

Deno.test("any bytes are a head or refused", () => {
  const head = encodeHead({ memoryBytes: 65536, globals: new Map([["a", 1n]]), state: { b: 2 } });
  fc.assert(fc.property(fc.nat(head.length - 1), fc.nat(255), (at, byte) => {
    const region = head.slice();
    region[at] = byte;
    try {
      decodeHead(region);
    } catch (error) {
      if (!(error instanceof IntegrityError)) throw error;
    }
  }));
  for (let length = 0; length < head.length; length++) {
    assertThrows(() => decodeHead(head.subarray(0, length)), IntegrityError);
  }
});

Deno.test("a state that is too large, or no JSON, is refused", () => {
  const head = (state: unknown) => encodeHead({ memoryBytes: 0, globals: new Map(), state });
  const ring: Record<string, unknown> = {};
  ring["ring"] = ring;
  assertThrows(() => head("x".repeat(HEAD_BYTES)), UsageError, "bytes of state");
  assertThrows(() => head(ring), UsageError, "Cannot move the state");
  assertThrows(() => head(1n), UsageError, "Cannot move the state");
});
