/**
 * The handshake of one NBD connection, server side: fixed newstyle, from the greeting to GO or
 * EXPORT_NAME, after which an {@linkcode NbdSession} takes the connection over.
 *
 * What a client gets wrong is answered and leaves the stream in step, as far as the protocol has an
 * answer for it; options, their length and the time for all of them are limited.
 *
 * The client of go-nbd is served too. It says that it does not speak fixed newstyle, sends GO all
 * the same, does not count the data of that in its length, calls the default export `default`, and
 * uses the preferred block size without having asked for it.
 *
 * @module
 */
import { ProtocolError } from "../backend/errors.ts";
import type { Channel, Protocol } from "../net/channel.ts";
import { joined } from "../net/joined.ts";
import { ALLOCATION, HANDSHAKE, INFO, LIMIT, OPTION, REPLY, SIZE } from "./constants.ts";
import { BLOCK_SIZES, type NbdExport, transmissionFlags } from "./export.ts";
import {
  decodeClientFlags,
  decodeInfoRequest,
  decodeMetaContextRequest,
  decodeOptionHeader,
  decodeText,
  encodeExportNameReply,
  encodeGreeting,
  encodeInfo,
  encodeMetaContext,
  encodeOptionReply,
  encodeServerReply,
  encodeText,
  type Info,
  type OptionHeader,
} from "./option_codec.ts";
import { NbdSession } from "./session.ts";

/** Data of one option that is read at all. */
const OPTION_BYTES = 64 << 10;
/** Data of one option that is dropped and answered with TOO_BIG; beyond, the connection is closed. */
const DRAIN_BYTES = 1 << 20;
/** Options of one connection. */
const OPTIONS = 64;
const ALLOCATION_ID = 1;

/** What a server offers, and how patient it is. */
export interface NegotiationOptions {
  /** The exports as they are now; the first one is the default, "" where no other has that name. */
  exports: () => readonly NbdExport[];
  /** How long the handshake may take, in ms. */
  handshakeMs: number;
  /** Called when the transmission phase begins. */
  onSession?: (session: NbdSession) => void;
}

/** See the module. */
export class NbdNegotiation implements Protocol {
  readonly #channel: Channel;
  readonly #options: NegotiationOptions;
  readonly #cancelDeadline: () => void;
  #greeted = false;
  #fixed = true;
  #zeroes = true;
  #structured = false;
  /** The export for which `base:allocation` was selected. */
  #allocationFor: NbdExport | undefined;
  #count = 0;
  #drainLeft = 0;
  #over = false;

  /** Greets the client; attach the channel to this protocol afterwards. */
  constructor(channel: Channel, options: NegotiationOptions) {
    this.#channel = channel;
    this.#options = options;
    this.#cancelDeadline = channel.deadline(options.handshakeMs, () => this.#drop());
    channel.queueCopy(encodeGreeting(HANDSHAKE.FIXED_NEWSTYLE | HANDSHAKE.NO_ZEROES));
  }

  receive(): void {
    try {
      while (!this.#over && this.#takeMessage());
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#drop();
    }
  }

  drained(): void {
    this.receive();
  }

  closed(): void {
    this.#over = true;
    this.#cancelDeadline();
  }

  #takeMessage(): boolean {
    if (this.#drainLeft > 0) return this.#drain();
    if (!this.#channel.hasRoom()) return false;
    return this.#greeted ? this.#takeOption() : this.#takeFlags();
  }

  #takeFlags(): boolean {
    const bytes = this.#peek(SIZE.CLIENT_FLAGS);
    if (bytes === undefined) return false;
    const flags = decodeClientFlags(bytes);
    this.#fixed = (flags & HANDSHAKE.FIXED_NEWSTYLE) !== 0;
    this.#zeroes = (flags & HANDSHAKE.NO_ZEROES) === 0;
    this.#channel.consume(SIZE.CLIENT_FLAGS);
    this.#greeted = true;
    return true;
  }

  #takeOption(): boolean {
    const head = this.#peek(SIZE.OPTION_HEADER);
    if (head === undefined) return false;
    const header = decodeOptionHeader(head);
    if (header.length > DRAIN_BYTES || this.#count >= OPTIONS) {
      this.#drop();
      return false;
    }
    const tooBig = header.length > OPTION_BYTES;
    const length = this.#dataLength(header);
    if (length === undefined) return false;
    const whole = tooBig ? head : this.#peek(SIZE.OPTION_HEADER + length);
    if (whole === undefined) return false;
    const data = whole.slice(SIZE.OPTION_HEADER);
    this.#count++;
    this.#channel.consume(whole.length);
    if (tooBig) {
      this.#drainLeft = header.length;
      this.#refuse(header.option, REPLY.ERR_TOO_BIG, "The option is too long");
    } else {
      this.#answer(header, data);
    }
    return true;
  }

  /** The length of an option's data, once it is known. */
  #dataLength({ option, length }: OptionHeader): number | undefined {
    if (this.#fixed || option !== OPTION.GO || length > 0) return length;
    // The data is there, although it is not counted: u32 name length, name, u16 count, u16 ids.
    const name = this.#peek(SIZE.OPTION_HEADER + 4);
    if (name === undefined) return undefined;
    const nameLength = viewOf(name).getUint32(SIZE.OPTION_HEADER);
    if (nameLength > LIMIT.STRING) throw new ProtocolError("The name of an export is too long");
    const fixed = this.#peek(SIZE.OPTION_HEADER + 4 + nameLength + 2);
    if (fixed === undefined) return undefined;
    return 4 + nameLength + 2 + 2 * viewOf(fixed).getUint16(fixed.length - 2);
  }

  #answer({ option }: OptionHeader, data: Uint8Array): void {
    try {
      this.#perform(option, data);
    } catch (error) {
      if (!(error instanceof ProtocolError) || option === OPTION.EXPORT_NAME) throw error;
      this.#refuse(option, REPLY.ERR_INVALID, error.message);
    }
  }

  #perform(option: number, data: Uint8Array): void {
    switch (option) {
      case OPTION.EXPORT_NAME:
        return this.#exportName(decodeText(data));
      case OPTION.ABORT:
        this.#reply(option, REPLY.ACK);
        return this.#drop();
      case OPTION.LIST:
        expectNoData(data);
        return this.#list();
      case OPTION.STARTTLS:
        expectNoData(data);
        return this.#refuse(option, REPLY.ERR_UNSUP, "This server has no TLS");
      case OPTION.INFO:
      case OPTION.GO:
        return this.#info(option, data);
      case OPTION.STRUCTURED_REPLY:
        expectNoData(data);
        this.#structured = true;
        return this.#reply(option, REPLY.ACK);
      case OPTION.LIST_META_CONTEXT:
      case OPTION.SET_META_CONTEXT:
        return this.#metaContext(option, data);
      default:
        return this.#refuse(option, REPLY.ERR_UNSUP, "This server does not know the option");
    }
  }

  #exportName(name: string): void {
    const offered = this.#find(name);
    if (offered === undefined) return this.#drop();
    const flags = transmissionFlags(offered, this.#structured);
    const info = { size: offered.backend.size, flags };
    this.#channel.queueCopy(encodeExportNameReply(info, this.#zeroes));
    this.#begin(offered, flags);
  }

  #list(): void {
    const replies = this.#options.exports().map(({ name, description }) =>
      encodeOptionReply(OPTION.LIST, REPLY.SERVER, encodeServerReply({ name, description }))
    );
    // One entry of the channel's queue for all of them, however many there are.
    this.#channel.queueCopy(joined([...replies, encodeOptionReply(OPTION.LIST, REPLY.ACK)]));
  }

  #info(option: number, data: Uint8Array): void {
    const request = decodeInfoRequest(data);
    if (!this.#fixed) request.infos.push(INFO.BLOCK_SIZE);
    const offered = this.#find(request.name);
    if (offered === undefined) {
      return this.#refuse(option, REPLY.ERR_UNKNOWN, "This server has no such export");
    }
    const flags = transmissionFlags(offered, this.#structured);
    const infos: Info[] = [{ kind: "export", size: offered.backend.size, flags }];
    if (request.infos.includes(INFO.NAME)) infos.push({ kind: "name", text: offered.name });
    if (request.infos.includes(INFO.DESCRIPTION)) {
      infos.push({ kind: "description", text: offered.description });
    }
    if (request.infos.includes(INFO.BLOCK_SIZE)) infos.push({ kind: "block size", ...BLOCK_SIZES });
    for (const info of infos) this.#reply(option, REPLY.INFO, encodeInfo(info));
    this.#reply(option, REPLY.ACK);
    if (option === OPTION.GO) this.#begin(offered, flags);
  }

  #metaContext(option: number, data: Uint8Array): void {
    const setting = option === OPTION.SET_META_CONTEXT;
    // Whatever comes of this request, an earlier selection is void.
    if (setting) this.#allocationFor = undefined;
    const request = decodeMetaContextRequest(data);
    if (!this.#structured) {
      return this.#refuse(option, REPLY.ERR_INVALID, "Meta contexts need structured replies");
    }
    const offered = this.#find(request.name);
    if (offered === undefined) {
      return this.#refuse(option, REPLY.ERR_UNKNOWN, "This server has no such export");
    }
    const { queries } = request;
    const listed = !setting && (queries.length === 0 || queries.includes("base:"));
    if (listed || queries.includes(ALLOCATION.NAME)) {
      const context = { id: setting ? ALLOCATION_ID : 0, name: ALLOCATION.NAME };
      this.#reply(option, REPLY.META_CONTEXT, encodeMetaContext(context));
      if (setting) this.#allocationFor = offered;
    }
    this.#reply(option, REPLY.ACK);
  }

  /** Hands the connection to the transmission phase. */
  #begin(offered: NbdExport, flags: number): void {
    this.#over = true;
    this.#cancelDeadline();
    const session = new NbdSession(this.#channel, {
      backend: offered.backend,
      flags,
      structured: this.#structured,
      allocationId: this.#allocationFor === offered ? ALLOCATION_ID : undefined,
    });
    this.#channel.handOver(session);
    this.#options.onSession?.(session);
    session.receive();
  }

  #find(name: string): NbdExport | undefined {
    const exports = this.#options.exports();
    const named = exports.find((offered) => offered.name === name);
    const isDefault = name === "" || (name === "default" && !this.#fixed);
    if (named !== undefined || !isDefault) return named;
    return exports.find((offered) => offered.name === "") ?? exports[0];
  }

  /** The next `length` bytes of the input once they are there. */
  #peek(length: number): Uint8Array | undefined {
    const { start, end, input } = this.#channel;
    if (end - start >= length) return input.subarray(start, start + length);
    this.#channel.expect(length);
    return undefined;
  }

  #drain(): boolean {
    const now = Math.min(this.#drainLeft, this.#channel.end - this.#channel.start);
    this.#channel.consume(now);
    this.#drainLeft -= now;
    return this.#drainLeft === 0;
  }

  #reply(option: number, type: number, data?: Uint8Array): void {
    this.#channel.queueCopy(encodeOptionReply(option, type, data));
  }

  #refuse(option: number, type: number, message: string): void {
    this.#reply(option, type, encodeText(message));
  }

  #drop(): void {
    this.#over = true;
    this.#channel.close();
  }
}

function expectNoData(data: Uint8Array): void {
  if (data.length > 0) throw new ProtocolError("The option takes no data");
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
