/**
 * The messages of the NBD handshake, both directions: bytes to values and back (fixed newstyle,
 * NetworkBlockDevice/nbd, doc/proto.md, "Protocol phases" and "Option types"). No input or output.
 *
 * A decoder takes exactly the bytes of one message and throws {@linkcode ProtocolError} unless
 * every length inside agrees with them, each string is UTF-8 of at most 4096 bytes without NUL, and
 * each size is a safe integer. An encoder throws {@linkcode UsageError} for a string that cannot be
 * sent. Strings are copied out; payloads of unknown kinds are views of the message.
 *
 * @module
 */
import { ProtocolError, UsageError } from "../backend/errors.ts";
import { HANDSHAKE, INFO, LIMIT, MAGIC, SIZE } from "./constants.ts";
import { MessageReader } from "./message_reader.ts";

/** Bytes of a message. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** The head of an option request: `length` bytes of data follow. */
export interface OptionHeader {
  /** One of `OPTION`, or any other number. */
  option: number;
  /** Bytes of data. */
  length: number;
}

/** The head of a reply to an option: `length` bytes of data follow. */
export interface OptionReplyHeader extends OptionHeader {
  /** One of `REPLY`, or any other number; over 2^31 it is an error. */
  type: number;
}

/** The data of INFO and GO. */
export interface InfoRequest {
  /** Name of the export. */
  name: string;
  /** Ids of the information that is asked for (`INFO`). */
  infos: number[];
}

/** What a LIST reply says of one export. */
export interface ServerReply {
  /** Its name. */
  name: string;
  /** Text for people. */
  description: string;
}

/** Size and transmission flags (`FLAG`) of an export. */
export interface ExportInfo {
  /** Bytes of the export. */
  size: number;
  /** Transmission flags. */
  flags: number;
}

/** Block sizes in bytes, each a power of 2 except `maximum`. */
export interface BlockSizes {
  /** Alignment that requests need. */
  minimum: number;
  /** Alignment and length that go fast. */
  preferred: number;
  /** Longest payload of a READ or WRITE; 2^32 - 1 means no limit. */
  maximum: number;
}

/** One piece of information about an export. */
export type Info =
  | { kind: "export" } & ExportInfo
  | { kind: "name" | "description"; text: string }
  | { kind: "block size" } & BlockSizes
  | { kind: "unknown"; type: number; payload: Uint8Array };

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export interface MetaContextRequest {
  /** Name of the export. */
  name: string;
  /** Contexts that are asked for, such as `base:allocation`. */
  queries: string[];
}

/** One context of a reply: BLOCK_STATUS chunks carry its id. */
export interface MetaContext {
  /** Its id on this connection. */
  id: number;
  /** Its name. */
  name: string;
}

/** Second magic of the handshake that fixed newstyle replaced. */
const OLDSTYLE = { HIGH: 0x0000_4202, LOW: 0x8186_1253 };

/** Zeroes after the answer to EXPORT_NAME, for a client that does not speak NO_ZEROES. */
const EXPORT_NAME_ZEROES = 124;

const BLOCK_MINIMUM_LIMIT = 65536;

/** The first message of a server; `flags` of `HANDSHAKE`. */
export function encodeGreeting(flags: number): Bytes {
  const { bytes, view } = message(SIZE.GREETING);
  view.setUint32(0, MAGIC.INIT_HIGH);
  view.setUint32(4, MAGIC.INIT_LOW);
  view.setUint32(8, MAGIC.OPTION_HIGH);
  view.setUint32(12, MAGIC.OPTION_LOW);
  view.setUint16(16, flags);
  return bytes;
}

/** The flags of a server's first message. */
export function decodeGreeting(bytes: Uint8Array): number {
  const reader = new MessageReader("the server's greeting", bytes);
  if (reader.u32() !== MAGIC.INIT_HIGH || reader.u32() !== MAGIC.INIT_LOW) {
    throw new ProtocolError("The peer is not an NBD server: its first bytes are not NBDMAGIC");
  }
  const high = reader.u32();
  const low = reader.u32();
  const flags = reader.u16();
  reader.end();
  if (high === OLDSTYLE.HIGH && low === OLDSTYLE.LOW) {
    throw new ProtocolError("The NBD server speaks only the oldstyle handshake", {
      hint: "use a server newer than 2012",
    });
  }
  if (high !== MAGIC.OPTION_HIGH || low !== MAGIC.OPTION_LOW) {
    throw new ProtocolError("The NBD server's greeting has a magic number that is not known");
  }
  return flags;
}

/** The first message of a client; `flags` of `HANDSHAKE`. */
export function encodeClientFlags(flags: number): Bytes {
  const { bytes, view } = message(SIZE.CLIENT_FLAGS);
  view.setUint32(0, flags);
  return bytes;
}

/** The flags of a client's first message, which must be among those that the server offered. */
export function decodeClientFlags(
  bytes: Uint8Array,
  offered: number = HANDSHAKE.FIXED_NEWSTYLE | HANDSHAKE.NO_ZEROES,
): number {
  const reader = new MessageReader("the client flags", bytes);
  const flags = reader.u32();
  reader.end();
  if ((flags & ~offered) === 0) return flags;
  throw new ProtocolError(`The client flags 0x${flags.toString(16)} were not offered`);
}

/** An option request. */
export function encodeOption(option: number, data?: Uint8Array): Bytes {
  const { bytes, view } = message(SIZE.OPTION_HEADER + (data?.length ?? 0));
  view.setUint32(0, MAGIC.OPTION_HIGH);
  view.setUint32(4, MAGIC.OPTION_LOW);
  view.setUint32(8, option);
  view.setUint32(12, data?.length ?? 0);
  if (data !== undefined) bytes.set(data, SIZE.OPTION_HEADER);
  return bytes;
}

/** The head of an option request; the caller bounds its length. */
export function decodeOptionHeader(bytes: Uint8Array): OptionHeader {
  const reader = new MessageReader("the head of an option", bytes);
  if (reader.u32() !== MAGIC.OPTION_HIGH || reader.u32() !== MAGIC.OPTION_LOW) {
    throw new ProtocolError("An option does not start with its magic number");
  }
  const header = { option: reader.u32(), length: reader.u32() };
  reader.end();
  return header;
}

/** A reply to an option. */
export function encodeOptionReply(option: number, type: number, data?: Uint8Array): Bytes {
  const { bytes, view } = message(SIZE.OPTION_REPLY_HEADER + (data?.length ?? 0));
  view.setUint32(0, MAGIC.OPTION_REPLY_HIGH);
  view.setUint32(4, MAGIC.OPTION_REPLY_LOW);
  view.setUint32(8, option);
  view.setUint32(12, type);
  view.setUint32(16, data?.length ?? 0);
  if (data !== undefined) bytes.set(data, SIZE.OPTION_REPLY_HEADER);
  return bytes;
}

/** The head of a reply to an option; the caller bounds its length. */
export function decodeOptionReplyHeader(bytes: Uint8Array): OptionReplyHeader {
  const reader = new MessageReader("the head of an option reply", bytes);
  if (reader.u32() !== MAGIC.OPTION_REPLY_HIGH || reader.u32() !== MAGIC.OPTION_REPLY_LOW) {
    throw new ProtocolError("An option reply does not start with its magic number");
  }
  const header = { option: reader.u32(), type: reader.u32(), length: reader.u32() };
  reader.end();
  return header;
}

/** A string that is the whole data: the name of EXPORT_NAME, the message of an error. */
export function encodeText(text: string): Bytes {
  const bytes = utf8(text);
  if (bytes.length > LIMIT.STRING || text.includes("\0") || !text.isWellFormed()) {
    throw new UsageError(
      `Cannot send ${JSON.stringify(text.slice(0, 80))} over NBD as a string there has at most ` +
        `${LIMIT.STRING} bytes of UTF-8 without NUL`,
    );
  }
  return bytes;
}

/** A string that is the whole data. */
export function decodeText(data: Uint8Array): string {
  return new MessageReader("a string", data).text(data.length);
}

/** The data of INFO and GO. */
export function encodeInfoRequest(request: InfoRequest): Bytes {
  const name = encodeText(request.name);
  const { bytes, view } = message(4 + name.length + 2 + 2 * request.infos.length);
  view.setUint32(0, name.length);
  bytes.set(name, 4);
  let at = 4 + name.length;
  view.setUint16(at, request.infos.length);
  for (const info of request.infos) view.setUint16(at += 2, info);
  return bytes;
}

/** The data of INFO and GO. */
export function decodeInfoRequest(data: Uint8Array): InfoRequest {
  const reader = new MessageReader("a request for an export's information", data);
  const name = reader.text(reader.u32());
  const count = reader.u16();
  reader.expect(2 * count);
  const infos = Array.from({ length: count }, () => reader.u16());
  reader.end();
  return { name, infos };
}

/** The data of a LIST reply. */
export function encodeServerReply(reply: ServerReply): Bytes {
  const name = encodeText(reply.name);
  const description = encodeText(reply.description);
  const { bytes, view } = message(4 + name.length + description.length);
  view.setUint32(0, name.length);
  bytes.set(name, 4);
  bytes.set(description, 4 + name.length);
  return bytes;
}

/** The data of a LIST reply. */
export function decodeServerReply(data: Uint8Array): ServerReply {
  const reader = new MessageReader("an export's listing", data);
  const name = reader.text(reader.u32());
  const description = reader.text(reader.left);
  return { name, description };
}

/** The data of an INFO reply. */
export function encodeInfo(info: Info): Bytes {
  switch (info.kind) {
    case "export": {
      const { bytes, view } = infoMessage(INFO.EXPORT, 10);
      setExport(view, 2, info);
      return bytes;
    }
    case "block size": {
      const { bytes, view } = infoMessage(INFO.BLOCK_SIZE, 12);
      view.setUint32(2, info.minimum);
      view.setUint32(6, info.preferred);
      view.setUint32(10, info.maximum);
      return bytes;
    }
    case "name":
      return infoMessage(INFO.NAME, encodeText(info.text)).bytes;
    case "description":
      return infoMessage(INFO.DESCRIPTION, encodeText(info.text)).bytes;
    case "unknown":
      return infoMessage(info.type, info.payload).bytes;
  }
}

/** The data of an INFO reply. */
export function decodeInfo(data: Uint8Array): Info {
  const reader = new MessageReader("an export's information", data);
  const type = reader.u16();
  switch (type) {
    case INFO.EXPORT: {
      const info = { size: reader.u64(), flags: reader.u16() };
      reader.end();
      return { kind: "export", ...info };
    }
    case INFO.NAME:
      return { kind: "name", text: reader.text(reader.left) };
    case INFO.DESCRIPTION:
      return { kind: "description", text: reader.text(reader.left) };
    case INFO.BLOCK_SIZE: {
      const sizes = { minimum: reader.u32(), preferred: reader.u32(), maximum: reader.u32() };
      reader.end();
      checkBlockSizes(sizes);
      return { kind: "block size", ...sizes };
    }
    default:
      return { kind: "unknown", type, payload: data.subarray(2) };
  }
}

/** The answer to EXPORT_NAME; `zeroes` unless NO_ZEROES was negotiated. */
export function encodeExportNameReply(info: ExportInfo, zeroes: boolean): Bytes {
  const { bytes, view } = message(SIZE.EXPORT_NAME_REPLY + (zeroes ? EXPORT_NAME_ZEROES : 0));
  setExport(view, 0, info);
  return bytes;
}

/** The answer to EXPORT_NAME, without the zeroes that may follow. */
export function decodeExportNameReply(bytes: Uint8Array): ExportInfo {
  const reader = new MessageReader("the answer to an export name", bytes);
  const info = { size: reader.u64(), flags: reader.u16() };
  reader.end();
  return info;
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function encodeMetaContextRequest(request: MetaContextRequest): Bytes {
  const name = encodeText(request.name);
  const queries = request.queries.map(encodeText);
  const length = queries.reduce((sum, query) => sum + 4 + query.length, 4 + name.length + 4);
  const { bytes, view } = message(length);
  view.setUint32(0, name.length);
  bytes.set(name, 4);
  let at = 4 + name.length;
  view.setUint32(at, queries.length);
  at += 4;
  for (const query of queries) {
    view.setUint32(at, query.length);
    bytes.set(query, at + 4);
    at += 4 + query.length;
  }
  return bytes;
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function decodeMetaContextRequest(data: Uint8Array): MetaContextRequest {
  const reader = new MessageReader("a request for meta contexts", data);
  const name = reader.text(reader.u32());
  const count = reader.u32();
  reader.expect(4 * count);
  const queries = Array.from({ length: count }, () => reader.text(reader.u32()));
  reader.end();
  return { name, queries };
}

/** The data of a META_CONTEXT reply. */
export function encodeMetaContext(context: MetaContext): Bytes {
  const name = encodeText(context.name);
  const { bytes, view } = message(4 + name.length);
  view.setUint32(0, context.id);
  bytes.set(name, 4);
  return bytes;
}

/** The data of a META_CONTEXT reply. */
export function decodeMetaContext(data: Uint8Array): MetaContext {
  const reader = new MessageReader("a meta context", data);
  return { id: reader.u32(), name: reader.text(reader.left) };
}

function message(length: number): { bytes: Bytes; view: DataView } {
  const bytes = new Uint8Array(length);
  return { bytes, view: new DataView(bytes.buffer) };
}

function infoMessage(type: number, payload: Uint8Array | number): ReturnType<typeof message> {
  const info = message(2 + (typeof payload === "number" ? payload : payload.length));
  info.view.setUint16(0, type);
  if (typeof payload !== "number") info.bytes.set(payload, 2);
  return info;
}

function setExport(view: DataView, at: number, { size, flags }: ExportInfo): void {
  view.setUint32(at, Math.floor(size / 2 ** 32));
  view.setUint32(at + 4, size % 2 ** 32);
  view.setUint16(at + 8, flags);
}

function checkBlockSizes({ minimum, preferred, maximum }: BlockSizes): void {
  const good = isPowerOf2(minimum) && minimum <= BLOCK_MINIMUM_LIMIT &&
    isPowerOf2(preferred) && preferred >= minimum && maximum >= minimum;
  if (good) return;
  throw new ProtocolError(
    `Cannot use the block sizes ${minimum}, ${preferred} and ${maximum}: the first two must be ` +
      `rising powers of 2, the first at most ${BLOCK_MINIMUM_LIMIT}, the last at least the first`,
  );
}

function isPowerOf2(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0;
}

function utf8(text: string): Bytes {
  return new TextEncoder().encode(text);
}
