/**
 * The client's side of the NBD handshake on an open stream (doc/proto.md, "Protocol phases"): fixed
 * newstyle, with what each older server lacks done without.
 *
 * The caller bounds the time by closing the stream. Nothing is read ahead, so that the stream is at
 * the first byte of the transmission phase afterwards.
 *
 * @module
 */
import {
  ConnectionError,
  ProtocolError,
  RemoteError,
  UnsupportedError,
} from "../backend/errors.ts";
import type { ByteConn } from "../net/reactor_conn.ts";
import { ALLOCATION, HANDSHAKE, INFO, OPTION, REPLY, SIZE } from "./constants.ts";
import {
  type BlockSizes,
  decodeExportNameReply,
  decodeGreeting,
  decodeInfo,
  decodeMetaContext,
  decodeOptionReplyHeader,
  decodeServerReply,
  decodeText,
  encodeClientFlags,
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
  encodeText,
  type ServerReply,
} from "./option_codec.ts";

/** What a server says of an export. */
export interface ExportDescription {
  /** Bytes. */
  size: number;
  /** Transmission flags (`FLAG`). */
  flags: number;
  /** Sizes that requests must keep to, where the server says so. */
  blockSizes: BlockSizes | undefined;
  /** The name that the server knows it by, where it says so. */
  name: string | undefined;
  /** Text for people, where there is one. */
  description: string | undefined;
}

/** Bytes of an option reply's data at most: a name, a description and their lengths. */
const REPLY_LIMIT = 2 * 4096 + 64;

/** Replies to one option at most, beside those of LIST. */
const REPLY_COUNT_LIMIT = 256;

/** Exports that {@linkcode ClientHandshake.list} takes. */
const EXPORT_COUNT_LIMIT = 10_000;

const EXPORT_NAME_ZEROES = 124;

/** An error reply of a server, before it is known whether there is a way around. */
interface Refusal {
  type: number;
  message: string;
}

/** The option phase of one connection. */
export class ClientHandshake {
  readonly #conn: ByteConn;
  readonly #flags: number;

  private constructor(conn: ByteConn, flags: number) {
    this.#conn = conn;
    this.#flags = flags;
  }

  /** Greets: takes the server's flags and answers with ours. */
  static async start(conn: ByteConn): Promise<ClientHandshake> {
    const offered = decodeGreeting(await receive(conn, SIZE.GREETING));
    const flags = offered & (HANDSHAKE.FIXED_NEWSTYLE | HANDSHAKE.NO_ZEROES);
    await send(conn, encodeClientFlags(flags));
    return new ClientHandshake(conn, flags);
  }

  /** Whether the server takes other options than EXPORT_NAME. */
  get isFixed(): boolean {
    return (this.#flags & HANDSHAKE.FIXED_NEWSTYLE) !== 0;
  }

  /** Asks for structured replies; answers whether they will be sent. */
  async structuredReplies(): Promise<boolean> {
    const refusal = await this.#ask(OPTION.STRUCTURED_REPLY);
    return refusal === undefined;
  }

  /** Asks for `base:allocation` of an export; answers its id, or nothing where it is not offered. */
  async allocationContext(name: string): Promise<number | undefined> {
    let id: number | undefined;
    const request = encodeMetaContextRequest({ name, queries: [ALLOCATION.NAME] });
    const refusal = await this.#ask(OPTION.SET_META_CONTEXT, request, (type, data) => {
      if (type !== REPLY.META_CONTEXT) return false;
      const context = decodeMetaContext(data);
      if (context.name !== ALLOCATION.NAME || id !== undefined) {
        throw new ProtocolError(
          `The server selected the meta context ${JSON.stringify(context.name)}, which was not ` +
            "asked for or selected before",
        );
      }
      id = context.id;
      return true;
    });
    return refusal === undefined ? id : undefined;
  }

  /**
   * Chooses the export and enters the transmission phase.
   *
   * @throws {RemoteError} The server refuses it; code ENOENT where it has no such export.
   */
  async go(name: string): Promise<ExportDescription> {
    if (!this.isFixed) return await this.#exportName(name);
    const answer = await this.#information(OPTION.GO, name, [INFO.BLOCK_SIZE]);
    if ("size" in answer) return answer;
    if (answer.type === REPLY.ERR_UNSUP) return await this.#exportName(name);
    throw refused(answer, `export ${JSON.stringify(name)}`);
  }

  /**
   * Asks about an export and stays in the option phase; where the server does not know INFO, it
   * chooses the export as {@linkcode go} does. `entered` says that it had to.
   */
  async info(name: string): Promise<{ found: ExportDescription; entered: boolean }> {
    if (!this.isFixed) return { found: await this.#exportName(name), entered: true };
    const infos = [INFO.NAME, INFO.DESCRIPTION, INFO.BLOCK_SIZE];
    const answer = await this.#information(OPTION.INFO, name, infos);
    if ("size" in answer) return { found: answer, entered: false };
    if (answer.type !== REPLY.ERR_UNSUP) throw refused(answer, `export ${JSON.stringify(name)}`);
    return { found: await this.go(name), entered: true };
  }

  /** Lists the exports of the server. */
  async list(): Promise<ServerReply[]> {
    if (!this.isFixed) {
      throw new UnsupportedError("The server cannot list its exports: it is too old for options");
    }
    const exports: ServerReply[] = [];
    const take = (type: number, data: Uint8Array) => {
      if (type !== REPLY.SERVER) return false;
      exports.push(decodeServerReply(data));
      return true;
    };
    const refusal = await this.#ask(OPTION.LIST, undefined, take, EXPORT_COUNT_LIMIT);
    if (refusal !== undefined) throw refused(refusal, "list of exports");
    return exports;
  }

  /** Ends the option phase politely; the server may be gone already. */
  async abort(): Promise<void> {
    if (!this.isFixed) return;
    await send(this.#conn, encodeOption(OPTION.ABORT)).catch(() => {});
  }

  async #information(
    option: number,
    name: string,
    infos: number[],
  ): Promise<ExportDescription | Refusal> {
    let sizes: { size: number; flags: number } | undefined;
    const found: Partial<ExportDescription> = {};
    const request = encodeInfoRequest({ name, infos });
    const refusal = await this.#ask(option, request, (type, data) => {
      if (type !== REPLY.INFO) return false;
      const info = decodeInfo(data);
      if (info.kind === "export") sizes = { size: info.size, flags: info.flags };
      else if (info.kind === "name") found.name = info.text;
      else if (info.kind === "description") found.description = info.text;
      else if (info.kind === "block size") {
        const { minimum, preferred, maximum } = info;
        found.blockSizes = { minimum, preferred, maximum };
      }
      return true;
    });
    if (refusal !== undefined) return refusal;
    if (sizes === undefined) {
      throw new ProtocolError("The server accepted an export without saying its size");
    }
    return { blockSizes: undefined, name: undefined, description: undefined, ...found, ...sizes };
  }

  async #exportName(name: string): Promise<ExportDescription> {
    await send(this.#conn, encodeOption(OPTION.EXPORT_NAME, encodeText(name)));
    const withZeroes = (this.#flags & HANDSHAKE.NO_ZEROES) === 0;
    let reply: Uint8Array;
    try {
      reply = await receive(this.#conn, SIZE.EXPORT_NAME_REPLY);
    } catch (error) {
      // A server has no other way to refuse a name here than to hang up.
      throw new ConnectionError(
        `The server hung up when asked for the export ${JSON.stringify(name)}`,
        { cause: error, hint: "it may have none of that name" },
      );
    }
    if (withZeroes) await receive(this.#conn, EXPORT_NAME_ZEROES);
    const { size, flags } = decodeExportNameReply(reply);
    return { size, flags, blockSizes: undefined, name: undefined, description: undefined };
  }

  /**
   * Sends an option and takes its replies up to the last. `take` judges those between; false means
   * that one of that type does not belong there. Answers the refusal where there was one.
   */
  async #ask(
    option: number,
    data?: Uint8Array,
    take: (type: number, data: Uint8Array) => boolean = () => false,
    countLimit: number = REPLY_COUNT_LIMIT,
  ): Promise<Refusal | undefined> {
    await send(this.#conn, encodeOption(option, data));
    for (let count = 0; count <= countLimit; count++) {
      const header = decodeOptionReplyHeader(await receive(this.#conn, SIZE.OPTION_REPLY_HEADER));
      if (header.option !== option) {
        throw new ProtocolError(
          `Option ${option} is answered by a reply to option ${header.option}`,
        );
      }
      if (header.length > REPLY_LIMIT) {
        throw new ProtocolError(
          `The reply to option ${option} has ${header.length} bytes where ${REPLY_LIMIT} are enough`,
        );
      }
      const payload = await receive(this.#conn, header.length);
      if (header.type === REPLY.ACK) return undefined;
      if (header.type >= 2 ** 31) {
        const refusal = { type: header.type, message: decodeText(payload) };
        if (header.type === REPLY.ERR_TLS_REQD) throw refused(refusal, `option ${option}`);
        return refusal;
      }
      if (!take(header.type, payload)) {
        throw new ProtocolError(`Option ${option} is answered by a reply of type ${header.type}`);
      }
    }
    throw new ProtocolError(`Option ${option} has more than ${countLimit} replies`);
  }
}

/** The error of a refusal that there is no way around. */
function refused({ type, message }: Refusal, what: string): Error {
  const reason = message === "" ? "" : `: ${message}`;
  switch (type) {
    case REPLY.ERR_TLS_REQD:
      return new UnsupportedError(`The server takes no connection without TLS${reason}`, {
        hint: "TLS is not available yet",
      });
    case REPLY.ERR_SHUTDOWN:
      return new ConnectionError(`The server is shutting down${reason}`);
    case REPLY.ERR_UNKNOWN:
      return new RemoteError("ENOENT", `The server has no ${what}${reason}`, {
        hint: "`telemap info` lists the exports of a server",
      });
    case REPLY.ERR_POLICY:
      return new RemoteError("EPERM", `The server does not allow us its ${what}${reason}`);
    case REPLY.ERR_UNSUP:
      return new RemoteError("EOPNOTSUPP", `The server does not offer us its ${what}${reason}`);
    default:
      return new RemoteError(
        "EINVAL",
        `The server refuses us its ${what} (error 0x${type.toString(16)})${reason}`,
      );
  }
}

async function send(conn: ByteConn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
}

/** Receives exactly `length` bytes; the caller has bounded it. */
async function receive(conn: ByteConn, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const count = await conn.read(bytes.subarray(at));
    if (count === null) throw new ConnectionError("The server hung up during the handshake");
    at += count;
  }
  return bytes;
}
