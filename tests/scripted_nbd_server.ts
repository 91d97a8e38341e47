/**
 * An NBD server that does what a test tells it to, right or wrong, connection by connection.
 *
 * @module
 */
import {
  CHUNK_DONE,
  COMMAND,
  HANDSHAKE,
  MAGIC,
  OPTION,
  REPLY,
  SIZE,
} from "../lib/nbd/constants.ts";
import {
  decodeOptionHeader,
  encodeGreeting,
  encodeInfo,
  encodeMetaContext,
  encodeOptionReply,
  type Info,
} from "../lib/nbd/option_codec.ts";

/** What the server does with one connection; the stream is closed when it answers or throws. */
export type Script = (peer: Peer, index: number) => Promise<void>;

/** A request as the server got it. */
export interface Received {
  /** One of `COMMAND`. */
  command: number;
  /** Of `COMMAND_FLAG`. */
  flags: number;
  /** To be repeated in the reply. */
  cookie: Uint8Array;
  /** First byte. */
  offset: number;
  /** Bytes. */
  length: number;
  /** Of a WRITE. */
  payload: Uint8Array;
}

/** What {@linkcode Peer.handshake} says. */
export interface Offer {
  /** Bytes of the export. */
  size: number;
  /** Transmission flags. */
  flags: number;
  /** Whether to take structured replies, and `base:allocation` with id 5; default true. */
  structured?: boolean;
  /** Sent beside the size. */
  infos?: Info[];
}

/** Id that {@linkcode Peer.handshake} gives to `base:allocation`. */
export const CONTEXT_ID = 5;

/** A server on a Unix socket. */
export class ScriptedNbdServer implements AsyncDisposable {
  /** Its address. */
  readonly url: string;
  /** Errors of scripts, but those of streams that the client closed. */
  readonly failures: unknown[] = [];
  readonly #folder: string;
  readonly #listener: Deno.UnixListener;
  readonly #serving: Promise<void>;
  readonly #connections: Promise<void>[] = [];
  #stopped: Promise<void> | undefined;

  /** Listens; each connection runs the script. */
  constructor(script: Script) {
    this.#folder = Deno.makeTempDirSync();
    const path = `${this.#folder}/s`;
    this.#listener = Deno.listen({ transport: "unix", path });
    this.url = `nbd+unix:///?socket=${path}`;
    this.#serving = this.#serve(script);
  }

  /** Connections so far. */
  get connections(): number {
    return this.#connections.length;
  }

  /** Stops; throws what a script failed with. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#stopped ??= this.#stop();
  }

  async #stop(): Promise<void> {
    this.#listener.close();
    await this.#serving;
    await Promise.all(this.#connections);
    await Deno.remove(this.#folder, { recursive: true });
    if (this.failures.length > 0) throw this.failures[0];
  }

  async #serve(script: Script): Promise<void> {
    try {
      for await (const conn of this.#listener) {
        this.#connections.push(this.#run(script, new Peer(conn), this.#connections.length));
      }
    } catch (error) {
      // What a listener throws that was closed amid an accept.
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
  }

  async #run(script: Script, peer: Peer, index: number): Promise<void> {
    try {
      await script(peer, index);
    } catch (error) {
      if (!(error instanceof GoneError)) this.failures.push(error);
    } finally {
      peer.close();
    }
  }
}

/** The client hung up. */
class GoneError extends Error {}

/** The server's end of one connection. */
export class Peer {
  readonly #conn: Deno.Conn;

  /** Takes a stream over. */
  constructor(conn: Deno.Conn) {
    this.#conn = conn;
  }

  /** Sends bytes as they are. */
  async send(...parts: Uint8Array[]): Promise<void> {
    for (const part of parts) {
      try {
        for (let at = 0; at < part.length;) at += await this.#conn.write(part.subarray(at));
      } catch (error) {
        throw new GoneError("", { cause: error });
      }
    }
  }

  /** Receives exactly so many bytes. */
  async receive(length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length;) {
      const count = await this.#conn.read(bytes.subarray(at)).catch(() => null);
      if (count === null) throw new GoneError();
      at += count;
    }
    return bytes;
  }

  /** Answers when the client has hung up. */
  async gone(): Promise<void> {
    const bytes = new Uint8Array(4096);
    while (await this.#conn.read(bytes).catch(() => null) !== null);
  }

  /** Greets, and takes the client's flags. */
  async greet(): Promise<void> {
    await this.send(encodeGreeting(HANDSHAKE.FIXED_NEWSTYLE | HANDSHAKE.NO_ZEROES));
    await this.receive(SIZE.CLIENT_FLAGS);
  }

  /** Receives an option request; its data is read and dropped. */
  async option(): Promise<number> {
    const { option, length } = decodeOptionHeader(await this.receive(SIZE.OPTION_HEADER));
    await this.receive(length);
    return option;
  }

  /** The whole handshake, up to the transmission phase. */
  async handshake({ size, flags, structured = true, infos = [] }: Offer): Promise<void> {
    await this.greet();
    for (;;) {
      const option = await this.option();
      if (option === OPTION.GO) {
        for (const info of [{ kind: "export" as const, size, flags }, ...infos]) {
          await this.send(encodeOptionReply(option, REPLY.INFO, encodeInfo(info)));
        }
      } else if (!structured) {
        await this.send(encodeOptionReply(option, REPLY.ERR_UNSUP));
        continue;
      } else if (option === OPTION.SET_META_CONTEXT) {
        const context = encodeMetaContext({ id: CONTEXT_ID, name: "base:allocation" });
        await this.send(encodeOptionReply(option, REPLY.META_CONTEXT, context));
      }
      await this.send(encodeOptionReply(option, REPLY.ACK));
      if (option === OPTION.GO) return;
    }
  }

  /** Receives a request. */
  async request(): Promise<Received> {
    const head = await this.receive(SIZE.REQUEST);
    const view = new DataView(head.buffer);
    if (view.getUint32(0) !== MAGIC.REQUEST) throw new Error("A request has no magic number");
    const command = view.getUint16(6);
    const length = view.getUint32(24);
    return {
      command,
      flags: view.getUint16(4),
      cookie: head.subarray(8, 16),
      offset: view.getUint32(16) * 2 ** 32 + view.getUint32(20),
      length,
      payload: await this.receive(command === COMMAND.WRITE ? length : 0),
    };
  }

  /** Sends a simple reply. */
  async simple(request: Received, error = 0, data: Uint8Array = new Uint8Array(0)): Promise<void> {
    const head = new Uint8Array(SIZE.SIMPLE_REPLY);
    const view = new DataView(head.buffer);
    view.setUint32(0, MAGIC.SIMPLE_REPLY);
    view.setUint32(4, error);
    head.set(request.cookie, 8);
    await this.send(head, data);
  }

  /** Sends a chunk of a structured reply; `isLast` sets its DONE flag. */
  async chunk(
    request: Received,
    type: number,
    isLast: boolean,
    payload: Uint8Array = new Uint8Array(0),
  ): Promise<void> {
    const head = new Uint8Array(SIZE.STRUCTURED_REPLY);
    const view = new DataView(head.buffer);
    view.setUint32(0, MAGIC.STRUCTURED_REPLY);
    view.setUint16(4, isLast ? CHUNK_DONE : 0);
    view.setUint16(6, type);
    head.set(request.cookie, 8);
    view.setUint32(16, payload.length);
    await this.send(head, payload);
  }

  /** Hangs up. */
  close(): void {
    try {
      this.#conn.close();
    } catch {
      // It is closed already.
    }
  }
}
