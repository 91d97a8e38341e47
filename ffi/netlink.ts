/**
 * linux/netlink.h and linux/genetlink.h: messages to parts of the kernel and its answers, as bytes.
 *
 * Nothing here does I/O. Integers are little-endian, as both architectures are.
 *
 * @module
 */

/** Netlink protocols. */
export const NETLINK = { KOBJECT_UEVENT: 15, GENERIC: 16 } as const;

/** Flags of a message. */
export const NLM_F = {
  REQUEST: 0x1,
  MULTI: 0x2,
  ACK: 0x4,
  DUMP: 0x300,
  /** In an answer: the request is not repeated in it. */
  CAPPED: 0x100,
  /** In an answer: attributes follow the error. */
  ACK_TLVS: 0x200,
} as const;

/** Message types that every protocol has. */
export const NLMSG = { NOOP: 1, ERROR: 2, DONE: 3, OVERRUN: 4 } as const;

/** The generic family that knows the others, its commands and attributes. */
export const GENL_CTRL = {
  ID: 0x10,
  VERSION: 1,
  CMD_GETFAMILY: 3,
  ATTR_FAMILY_ID: 1,
  ATTR_FAMILY_NAME: 2,
  ATTR_MCAST_GROUPS: 7,
  ATTR_MCAST_GRP_NAME: 1,
  ATTR_MCAST_GRP_ID: 2,
} as const;

const HEADER_SIZE = 16;
const GENERIC_HEADER_SIZE = 4;
const ATTRIBUTE_HEADER_SIZE = 4;
const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;
const NLMSGERR_ATTR_MSG = 1;

/** An attribute to be sent: its type, and a value that says how it is written. */
export interface Attribute {
  /** The type, in the numbers of the family. */
  type: number;
  /** A value of that C type; a string is NUL-terminated, a list is a nest of attributes. */
  value:
    | { u8: number }
    | { u32: number }
    | { u64: number }
    | { string: string }
    | { nest: Attribute[] };
}

/** A generic netlink request. */
export interface GenericRequest {
  /** The id of the family, which is the type of the message. */
  family: number;
  /** Bits of {@linkcode NLM_F}. */
  flags: number;
  /** The number that answers repeat. */
  sequence: number;
  /** The command, in the numbers of the family. */
  command: number;
  /** The version of the family's interface. */
  version: number;
  /** What the command takes. */
  attributes: Attribute[];
}

/** Writes `struct nlmsghdr`, `struct genlmsghdr` and the attributes. */
export function encodeRequest(request: GenericRequest): Uint8Array<ArrayBuffer> {
  const attributes = encodeAttributes(request.attributes);
  const bytes = new Uint8Array(HEADER_SIZE + GENERIC_HEADER_SIZE + attributes.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, true);
  view.setUint16(4, request.family, true);
  view.setUint16(6, request.flags, true);
  view.setUint32(8, request.sequence, true);
  view.setUint8(16, request.command);
  view.setUint8(17, request.version);
  bytes.set(attributes, HEADER_SIZE + GENERIC_HEADER_SIZE);
  return bytes;
}

/** Attributes of an answer by type; a type that occurs twice keeps its last value. */
export type Attributes = ReadonlyMap<number, Uint8Array>;

/** An answer, or a message to a multicast group. */
export type Message =
  /** Something that a family says. */
  | { kind: "generic"; sequence: number; family: number; command: number; attributes: Attributes }
  /** How a request ended: `errno` 0 is success; `text` is the kernel's reason where it gives one. */
  | { kind: "ended"; sequence: number; errno: number; text: string | undefined }
  /** The last of several answers. */
  | { kind: "done"; sequence: number };

/**
 * The messages in a datagram.
 *
 * @throws {RangeError} where a length reaches beyond what holds it.
 */
export function parseMessages(datagram: Uint8Array): Message[] {
  const messages: Message[] = [];
  for (let at = 0; at < datagram.length;) {
    const view = viewOf(datagram.subarray(at), HEADER_SIZE);
    const length = view.getUint32(0, true);
    if (length < HEADER_SIZE || at + length > datagram.length) {
      throw new RangeError(`Cannot read a netlink message of ${length} bytes`);
    }
    const message = parseMessage(datagram.subarray(at, at + length));
    if (message !== undefined) messages.push(message);
    at += aligned(length);
  }
  return messages;
}

/**
 * The attributes of a nest, in order: `[type, value]`.
 *
 * @throws {RangeError} where a length reaches beyond what holds it.
 */
export function parseAttributes(bytes: Uint8Array): [number, Uint8Array][] {
  const attributes: [number, Uint8Array][] = [];
  for (let at = 0; at < bytes.length;) {
    const view = viewOf(bytes.subarray(at), ATTRIBUTE_HEADER_SIZE);
    const length = view.getUint16(0, true);
    if (length < ATTRIBUTE_HEADER_SIZE || at + length > bytes.length) {
      throw new RangeError(`Cannot read a netlink attribute of ${length} bytes`);
    }
    const value = bytes.subarray(at + ATTRIBUTE_HEADER_SIZE, at + length);
    attributes.push([view.getUint16(2, true) & NLA_TYPE_MASK, value]);
    at += aligned(length);
  }
  return attributes;
}

/** An unsigned integer of 1, 2 or 4 bytes. Throws `RangeError` where it has another size. */
export function unsigned(value: Uint8Array | undefined): number {
  if (value !== undefined) {
    const view = viewOf(value, 0);
    if (value.length === 1) return view.getUint8(0);
    if (value.length === 2) return view.getUint16(0, true);
    if (value.length === 4) return view.getUint32(0, true);
  }
  throw new RangeError(`Cannot read an integer of ${value?.length ?? "no"} bytes`);
}

/** A NUL-terminated string. */
export function text(value: Uint8Array): string {
  const end = value.indexOf(0);
  return new TextDecoder().decode(end < 0 ? value : value.subarray(0, end));
}

function parseMessage(bytes: Uint8Array): Message | undefined {
  const view = viewOf(bytes, HEADER_SIZE);
  const type = view.getUint16(4, true);
  const flags = view.getUint16(6, true);
  const sequence = view.getUint32(8, true);
  const payload = bytes.subarray(HEADER_SIZE);
  if (type === NLMSG.DONE) return { kind: "done", sequence };
  if (type === NLMSG.ERROR) return parseError(payload, flags, sequence);
  if (type < GENL_CTRL.ID) return undefined;
  const command = viewOf(payload, GENERIC_HEADER_SIZE).getUint8(0);
  const attributes = new Map(parseAttributes(payload.subarray(GENERIC_HEADER_SIZE)));
  return { kind: "generic", sequence, family: type, command, attributes };
}

/** Reads `struct nlmsgerr`: the error, the header of the request, perhaps the request, attributes. */
function parseError(payload: Uint8Array, flags: number, sequence: number): Message {
  const view = viewOf(payload, 4 + HEADER_SIZE);
  const errno = -view.getInt32(0, true) | 0;
  let reason: string | undefined;
  if (flags & NLM_F.ACK_TLVS) {
    const repeated = errno === 0 || flags & NLM_F.CAPPED ? HEADER_SIZE : view.getUint32(4, true);
    const attributes = new Map(parseAttributes(payload.subarray(4 + aligned(repeated))));
    const message = attributes.get(NLMSGERR_ATTR_MSG);
    if (message !== undefined) reason = text(message);
  }
  return { kind: "ended", sequence, errno, text: reason };
}

function encodeAttributes(attributes: Attribute[]): Uint8Array<ArrayBuffer> {
  const parts = attributes.map(({ type, value }) => {
    const bytes = encodeValue(value);
    const part = new Uint8Array(ATTRIBUTE_HEADER_SIZE + aligned(bytes.length));
    const view = new DataView(part.buffer);
    view.setUint16(0, ATTRIBUTE_HEADER_SIZE + bytes.length, true);
    view.setUint16(2, "nest" in value ? type | NLA_F_NESTED : type, true);
    part.set(bytes, ATTRIBUTE_HEADER_SIZE);
    return part;
  });
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function encodeValue(value: Attribute["value"]): Uint8Array<ArrayBuffer> {
  if ("nest" in value) return encodeAttributes(value.nest);
  if ("string" in value) return new TextEncoder().encode(value.string + "\0");
  const bytes = new Uint8Array("u8" in value ? 1 : "u32" in value ? 4 : 8);
  const view = new DataView(bytes.buffer);
  if ("u8" in value) view.setUint8(0, value.u8);
  else if ("u32" in value) view.setUint32(0, value.u32, true);
  else view.setBigUint64(0, BigInt(value.u64), true);
  return bytes;
}

function viewOf(bytes: Uint8Array, size: number): DataView {
  if (bytes.length < size) throw new RangeError(`Cannot read ${size} bytes of ${bytes.length}`);
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function aligned(length: number): number {
  return Math.ceil(length / 4) * 4;
}
