/**
 * An NBD client that does what it is told, right or wrong, and reads what comes, message by
 * message. The numbers are written out here a second time, from the protocol's text.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import type { Wire } from "./wire.ts";

/** What an option is answered with. */
export interface OptionReply {
  option: number;
  type: number;
  data: Uint8Array<ArrayBuffer>;
}

/** A request of the transmission phase; everything is 0 or empty unless told. */
export interface Request {
  magic?: number;
  flags?: number;
  command?: number;
  cookie?: bigint;
  offset?: bigint;
  length?: number;
  payload?: Uint8Array;
}

/** A simple reply, without the data that may follow. */
export interface SimpleReply {
  error: number;
  cookie: bigint;
}

/** One chunk of a structured reply. */
export interface Chunk {
  flags: number;
  type: number;
  cookie: bigint;
  payload: Uint8Array<ArrayBuffer>;
}

/** Size and flags of an export, as GO tells them. */
export interface ExportFacts {
  size: bigint;
  flags: number;
}

const REPLY_ACK = 1;
const REPLY_ERROR = 0x8000_0000;

/** See the module. */
export class RawClient {
  /** The connection. */
  readonly wire: Wire;

  constructor(wire: Wire) {
    this.wire = wire;
  }

  /** Takes the greeting and sends the client's flags. */
  static async greet(wire: Wire, flags = 3): Promise<RawClient> {
    const client = new RawClient(wire);
    assertEquals(
      await wire.take(18),
      bytesOf("u64", 0x4e42444d41474943n, "u64", IHAVEOPT, "u16", 3),
    );
    wire.send(bytesOf("u32", flags));
    return client;
  }

  /** Greets, asks for structured replies and `base:allocation` where told, and goes. */
  static async go(
    wire: Wire,
    options: { name?: string; structured?: boolean } = {},
  ): Promise<RawClient> {
    const { name = "", structured = false } = options;
    const client = await RawClient.greet(wire);
    if (structured) {
      assertEquals((await client.ask(8)).map(({ type }) => type), [1]);
      const replies = await client.ask(10, metaContextData(name, ["base:allocation"]));
      assertEquals(replies.map(({ type }) => type), [4, 1]);
    }
    const replies = await client.ask(7, infoData(name));
    assertEquals(replies.at(-1)!.type, REPLY_ACK);
    return client;
  }

  /** Sends an option and takes its replies, the last of which is ACK or an error. */
  async ask(option: number, data: Uint8Array = new Uint8Array()): Promise<OptionReply[]> {
    this.wire.send(optionBytes(option, data));
    const replies: OptionReply[] = [];
    while (true) {
      const reply = await this.optionReply();
      assertEquals(reply.option, option);
      replies.push(reply);
      if (reply.type === REPLY_ACK || reply.type >= REPLY_ERROR) return replies;
    }
  }

  /** Takes one reply to an option. */
  async optionReply(): Promise<OptionReply> {
    const view = viewOf(await this.wire.take(20));
    assertEquals(view.getBigUint64(0), 0x3e889045565a9n);
    const data = await this.wire.take(view.getUint32(16));
    return { option: view.getUint32(8), type: view.getUint32(12), data };
  }

  /** Sends a request. */
  send(request: Request): void {
    this.wire.send(requestBytes(request));
  }

  /** Takes a simple reply. */
  async simple(): Promise<SimpleReply> {
    const view = viewOf(await this.wire.take(16));
    assertEquals(view.getUint32(0), 0x67446698, "It is a simple reply");
    return { error: view.getUint32(4), cookie: view.getBigUint64(8) };
  }

  /** Takes a chunk of a structured reply. */
  async chunk(): Promise<Chunk> {
    const view = viewOf(await this.wire.take(20));
    assertEquals(view.getUint32(0), 0x668e33ef, "It is a structured reply");
    const payload = await this.wire.take(view.getUint32(16));
    return {
      flags: view.getUint16(4),
      type: view.getUint16(6),
      cookie: view.getBigUint64(8),
      payload,
    };
  }

  /** Sends a request with a simple reply and answers its error. */
  async error(request: Request): Promise<number> {
    this.send(request);
    const { error, cookie } = await this.simple();
    assertEquals(cookie, request.cookie ?? 0n);
    return error;
  }

  /** Reads by a simple reply, which must not be an error. */
  async read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const cookie = 0x0123_4567_89ab_cdefn;
    assertEquals(await this.error({ command: 0, cookie, offset: BigInt(offset), length }), 0);
    return await this.wire.take(length);
  }

  /** Reads by one structured chunk, which must not be an error. */
  async readStructured(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const cookie = 0xfedc_ba98_7654_3210n;
    this.send({ command: 0, cookie, offset: BigInt(offset), length });
    const { payload, ...chunk } = await this.chunk();
    assertEquals(chunk, { flags: 1, type: 1, cookie });
    assertEquals(viewOf(payload).getBigUint64(0), BigInt(offset));
    assertEquals(payload.length, 8 + length);
    return payload.subarray(8);
  }
}

const IHAVEOPT = 0x49484156454f5054n;

/** An option request. */
export function optionBytes(option: number, data: Uint8Array = new Uint8Array()): Uint8Array {
  return concat([bytesOf("u64", IHAVEOPT, "u32", option, "u32", data.length), data]);
}

/** The data of INFO and GO. */
export function infoData(name: string | Uint8Array, infos: number[] = []): Uint8Array {
  const text = typeof name === "string" ? utf8(name) : name;
  return concat([
    bytesOf("u32", text.length),
    text,
    bytesOf("u16", infos.length),
    ...infos.map((info) => bytesOf("u16", info)),
  ]);
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function metaContextData(name: string, queries: string[]): Uint8Array {
  const string = (text: string) => concat([bytesOf("u32", utf8(text).length), utf8(text)]);
  return concat([string(name), bytesOf("u32", queries.length), ...queries.map(string)]);
}

/** A request of the transmission phase. */
export function requestBytes(request: Request): Uint8Array {
  const { magic = 0x25609513, flags = 0, command = 0, cookie = 0n } = request;
  const { payload = new Uint8Array(), offset = 0n, length = payload.length } = request;
  return concat([
    bytesOf(
      "u32",
      magic,
      "u16",
      flags,
      "u16",
      command,
      "u64",
      cookie,
      "u64",
      offset,
      "u32",
      length,
    ),
    payload,
  ]);
}

/** The export's facts in what GO or INFO was answered with. */
export function exportFacts(replies: OptionReply[]): ExportFacts {
  const found = replies.find(({ type, data }) => type === 3 && viewOf(data).getUint16(0) === 0);
  assertEquals(found?.data.length, 12);
  const view = viewOf(found!.data);
  return { size: view.getBigUint64(2), flags: view.getUint16(10) };
}

/** Big-endian integers, each after its type. */
export function bytesOf(...parts: ("u16" | "u32" | "u64" | number | bigint)[]): Uint8Array {
  const bytes: number[] = [];
  for (let index = 0; index < parts.length; index += 2) {
    const width = { u16: 2, u32: 4, u64: 8 }[parts[index] as "u16" | "u32" | "u64"];
    const value = BigInt(parts[index + 1]!);
    for (let shift = 8 * (width - 1); shift >= 0; shift -= 8) {
      bytes.push(Number(value >> BigInt(shift) & 0xffn));
    }
  }
  return new Uint8Array(bytes);
}

/** UTF-8. */
export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** A view of exactly these bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
