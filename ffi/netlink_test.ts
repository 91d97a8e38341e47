import { assertEquals, assertThrows } from "@std/assert";
import {
  type Attribute,
  encodeRequest,
  NLM_F,
  parseAttributes,
  parseMessages,
  text,
  unsigned,
} from "./netlink.ts";
import {
  connectAttributes,
  NBD_ATTR,
  NBD_FLAG,
  reconfigureAttributes,
  statusDevices,
} from "./nbd.ts";

/** Bytes from hexadecimal text; spaces and line ends are ignored. */
function bytes(hex: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.fromHex(hex.replace(/\s/g, ""));
}

function encode(attributes: Attribute[]): Uint8Array {
  return encodeRequest({
    family: 0x1c,
    flags: NLM_F.REQUEST | NLM_F.ACK,
    sequence: 7,
    command: 1,
    version: 1,
    attributes,
  });
}

Deno.test("a request: both headers, and attributes padded to 4 bytes", () => {
  const expected = bytes(`
    30000000 1c00 0500 07000000 00000000  01 01 0000
    0500 0100 ff000000
    0800 0200 78563412
    0c00 0300 0000000000100000`);
  assertEquals(
    encode([
      { type: 1, value: { u8: 255 } },
      { type: 2, value: { u32: 0x12345678 } },
      { type: 3, value: { u64: 2 ** 44 } },
    ]),
    expected,
  );
  assertEquals(
    encode([{ type: 10, value: { string: "ab" } }]),
    bytes("1c000000 1c000500 07000000 00000000 01010000 0700 0a00 61620000"),
  );
});

Deno.test("CONNECT carries size, block size, timeouts, flags, sockets and owner", () => {
  const attributes = connectAttributes({
    index: 3,
    size: 2 ** 40 + 512,
    blockSize: 512,
    timeout: 3600,
    deadConnectionTimeout: 5,
    serverFlags: NBD_FLAG.HAS_FLAGS | NBD_FLAG.SEND_FLUSH | NBD_FLAG.CAN_MULTI_CONN,
    sockets: [9, 10],
    identifier: "me",
  });
  const expected = bytes(`
    88000000 1c00 0500 07000000 00000000  01 01 0000
    0800 0100 03000000
    0c00 0200 0002000000010000
    0c00 0300 0002000000000000
    0c00 0400 100e000000000000
    0c00 0800 0500000000000000
    0c00 0500 0501000000000000
    0c00 0600 0000000000000000
    1c00 0780
      0c00 0180 0800 0100 09000000
      0c00 0180 0800 0100 0a000000
    0700 0a00 6d650000`);
  assertEquals(encode(attributes).toHex(), expected.toHex());
});

Deno.test("without an index the kernel chooses, so CONNECT has none", () => {
  const [first] = connectAttributes({
    size: 512,
    blockSize: 512,
    timeout: 1,
    deadConnectionTimeout: 0,
    serverFlags: 1,
    sockets: [1],
  });
  assertEquals(first!.type, NBD_ATTR.SIZE_BYTES);
});

Deno.test("RECONFIGURE names the device, its new sockets and its owner", () => {
  assertEquals(
    encode(reconfigureAttributes(0, [4], "x")).subarray(20).toHex(),
    bytes("08000100 00000000 10000780 0c000180 08000100 04000000 06000a00 78000000").toHex(),
  );
});

Deno.test("STATUS lists devices", () => {
  const list = bytes(`
    14000100 08000100 00000000 05000200 01000000
    14000100 08000100 0b000000 05000200 00000000`);
  assertEquals(statusDevices(new Map([[NBD_ATTR.DEVICE_LIST, list]])), [
    { index: 0, connected: true },
    { index: 11, connected: false },
  ]);
  assertEquals(statusDevices(undefined), []);
});

Deno.test("an answer, its acknowledgement and the end of a list in one datagram", () => {
  const messages = parseMessages(bytes(`
    1c000000 1c00 0000 07000000 00000000  01 01 0000  0800 0100 05000000
    24000000 0200 0001 07000000 00000000  00000000 24000000 1c000500 07000000 00000000
    14000000 0300 0200 08000000 00000000  00000000`));
  assertEquals(messages, [
    {
      kind: "generic",
      sequence: 7,
      family: 0x1c,
      command: 1,
      attributes: new Map([[1, bytes("05000000")]]),
    },
    { kind: "ended", sequence: 7, errno: 0, text: undefined },
    { kind: "done", sequence: 8 },
  ]);
});

Deno.test("a refusal carries errno and the kernel's reason, behind a whole or a capped request", () => {
  const reason = "0a00 0100 6e6f7065 2100 0000"; // "nope!" NUL and padding
  const capped = `30000000 0200 0003 07000000 00000000
    f0ffffff 24000000 1c000500 07000000 00000000 ${reason}`;
  const whole = `34000000 0200 0002 07000000 00000000
    f0ffffff 14000000 1c000500 07000000 00000000 01010000 ${reason}`;
  for (const [hex, length] of [[capped, 0x30], [whole, 0x34]] as const) {
    const datagram = bytes(hex);
    assertEquals(datagram.length, length);
    assertEquals(parseMessages(datagram), [
      { kind: "ended", sequence: 7, errno: 16, text: "nope!" },
    ]);
  }
});

Deno.test("lengths that reach too far are refused", () => {
  for (
    const hex of [
      "0f000000 1c000000 07000000 00000000",
      "11000000 1c000000 07000000 00000000",
      "10000000 1c000000",
      "10000000 1c000000 07000000 00000000", // no generic header
      "12000000 0200 0000 07000000 00000000 0000",
    ]
  ) assertThrows(() => parseMessages(bytes(hex)), RangeError);
  assertThrows(() => parseAttributes(bytes("0300 0100")), RangeError);
  assertThrows(() => parseAttributes(bytes("0900 0100 00000000")), RangeError);
  assertThrows(() => parseAttributes(bytes("0400")), RangeError);
});

Deno.test("damaged datagrams are read or refused, never anything else", () => {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  console.log(`seed ${seed}`);
  let state = seed;
  const random = (limit: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  const whole = bytes(`
    30000000 0200 0003 07000000 00000000  f0ffffff 24000000 1c000500 07000000 00000000
    0a00 0100 6e6f7065 2100 0000
    1c000000 1c00 0000 07000000 00000000  01 01 0000  0800 0100 05000000`);
  for (let round = 0; round < 5000; round++) {
    const damaged = whole.slice(0, random(whole.length + 1));
    for (let hits = random(4); hits > 0 && damaged.length > 0; hits--) {
      damaged[random(damaged.length)] = random(256);
    }
    try {
      parseMessages(damaged);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
  }
});

Deno.test("integers of 1, 2 and 4 bytes and strings are read", () => {
  assertEquals([unsigned(bytes("ff")), unsigned(bytes("ffff")), unsigned(bytes("ffffffff"))], [
    0xff,
    0xffff,
    0xffffffff,
  ]);
  assertThrows(() => unsigned(undefined), RangeError);
  assertThrows(() => unsigned(bytes("0000000000000000")), RangeError);
  assertEquals([text(bytes("616200ff")), text(bytes("6162"))], ["ab", "ab"]);
});
