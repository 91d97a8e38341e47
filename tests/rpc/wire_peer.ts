/**
 * One end of a connection of the native wire, in the hands of a test: it says what it is told to,
 * right or wrong.
 *
 * @module
 */
import { contentChecksum } from "../../lib/rpc/checksum.ts";
import {
  type ClientHello,
  decodeServerHello,
  encodeClientHello,
  encodeServerHello,
  helloLength,
  type ServerHello,
} from "../../lib/rpc/hello.ts";
import { HELLO_PREFIX_BYTES, type Refusal } from "../../lib/rpc/hello_prefix.ts";
import {
  decodeFrame,
  encodeFrame,
  FEATURE,
  Frame,
  HEADER_BYTES,
  LANE,
  LIMIT,
} from "../../lib/rpc/wire.ts";

/** A frame with its payload. */
export interface Message {
  frame: Frame;
  payload: Uint8Array;
}

/** See the module. */
export class WirePeer implements Disposable {
  /** The connection. */
  readonly conn: Deno.Conn;

  /** Connects to a `telemap://` URL. */
  static async dial(url: string): Promise<WirePeer> {
    const { hostname, port } = new URL(url);
    return new WirePeer(await Deno.connect({ hostname, port: Number(port) }));
  }

  /** Wraps a connection that was made. */
  constructor(conn: Deno.Conn) {
    this.conn = conn;
  }

  /** Sends bytes. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length;) done += await this.conn.write(bytes.subarray(done));
  }

  /** Receives exactly so many bytes; `undefined` where the connection ends before. */
  async read(length: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const count = await this.conn.read(bytes.subarray(done)).catch(() => null);
      if (count === null) return undefined;
      done += count;
    }
    return bytes;
  }

  /** Client: says hello, and answers what the server says. */
  async hello(change: Partial<ClientHello> = {}): Promise<ServerHello | Refusal> {
    await this.write(encodeClientHello(clientHello(change)));
    return await this.readServerHello();
  }

  /** Client: what the server says. */
  async readServerHello(): Promise<ServerHello | Refusal> {
    const bytes = await this.#readHello();
    if (bytes === undefined) throw new Error("The connection ended before the server's hello");
    return decodeServerHello(bytes);
  }

  /** Server: takes a hello, and answers it. */
  async welcome(change: Partial<ServerHello> = {}): Promise<void> {
    await this.#readHello();
    await this.write(encodeServerHello(serverHello(change)));
  }

  /** Sends a frame; its payload's length and checksum are right unless told. */
  async send(fields: Partial<Frame>, payload = new Uint8Array(0)): Promise<void> {
    await this.write(frameBytes(fields, payload));
  }

  /** Receives a frame; `undefined` where the connection ends before. */
  async receive(): Promise<Message | undefined> {
    const header = await this.read(HEADER_BYTES);
    if (header === undefined) return undefined;
    const frame = new Frame();
    decodeFrame(new DataView(header.buffer), 0, frame, LIMIT.PAYLOAD_MAX);
    const payload = await this.read(frame.payloadLength);
    return payload === undefined ? undefined : { frame, payload };
  }

  /** Closes the connection. */
  [Symbol.dispose](): void {
    this.conn.close();
  }

  async #readHello(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const prefix = await this.read(HELLO_PREFIX_BYTES);
    if (prefix === undefined) return undefined;
    const rest = await this.read(helloLength(new DataView(prefix.buffer), 0) - prefix.length);
    return rest === undefined ? undefined : new Uint8Array([...prefix, ...rest]);
  }
}

/** The bytes of a frame; its payload's length and checksum are right unless told. */
export function frameBytes(
  fields: Partial<Frame>,
  payload = new Uint8Array(0),
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  const right = { payloadLength: payload.length, checksum: contentChecksum(payload) };
  encodeFrame(new DataView(bytes.buffer), 0, Object.assign(new Frame(), right, fields));
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

/** A client's hello that a server takes. */
export function clientHello(change: Partial<ClientHello> = {}): ClientHello {
  return {
    ...{ features: FEATURE.CRC32 | FEATURE.ZSTD, payloadMax: LIMIT.PAYLOAD_MAX, inFlightMax: 64 },
    ...{ lane: LANE.URGENT, session: crypto.getRandomValues(new Uint8Array(16)), attempt: 1 },
    ...{ name: "", token: "", ...change },
  };
}

/** A server's hello that a client takes. */
export function serverHello(change: Partial<ServerHello> = {}): ServerHello {
  return {
    ...{ version: 1, features: FEATURE.CRC32, payloadMax: 1 << 20, inFlightMax: 64, blockSize: 1 },
    ...{ size: 1 << 20, region: new Uint8Array(16), instance: new Uint8Array(16) },
    ...{ readOnly: false, durable: true, ...change },
  };
}
