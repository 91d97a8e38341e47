/**
 * Replies of the transmission phase, simple and structured, from the bytes of a stream (doc/proto.md,
 * "Simple reply message" and "Structured reply chunk message"). No input or output: the caller
 * reads into {@linkcode ReplyParser.room} and says how much came.
 *
 * The data of a long READ goes from the stream straight into the buffer of who asked for it; all
 * else through one buffer of a fixed size. Nothing is allocated by a length that the server names.
 *
 * @module
 */
import { ProtocolError } from "../backend/errors.ts";
import type { ClientRequest } from "./client_request.ts";
import { CHUNK, CHUNK_DONE, COMMAND, LIMIT, MAGIC, SIZE } from "./constants.ts";

/** Who knows the requests that are waiting. */
export interface ReplySink {
  /** The request that was sent with a cookie; nothing where none was. */
  find(cookieHigh: number, cookieLow: number): ClientRequest | undefined;
  /** The answer is complete; `error` is 0 or an error number of the protocol. */
  finish(request: ClientRequest, cookieLow: number, error: number, message: string): void;
}

/** What was negotiated about replies. */
export interface ReplyForm {
  /** Whether structured replies were negotiated. */
  readonly structured: boolean;
  /** Id of the meta context `base:allocation`, where it was negotiated. */
  readonly allocation: number | undefined;
}

/** Bytes of the buffer that all but long READ data goes through. */
const BUFFER_SIZE = 256 << 10;

/** READ data of at least so many bytes goes straight to where it is wanted. */
const DIRECT_MINIMUM = 16 << 10;

/** Extents of one BLOCK_STATUS chunk at most (doc/proto.md). */
const CHUNK_EXTENT_LIMIT = 1 << 20;

/** Bytes of an error chunk before and after its message, of types to come too. */
const ERROR_FIXED_LIMIT = 64;

/** Error chunks of one reply: with this, every reply ends somewhere. */
const ERROR_COUNT_LIMIT = 1024;

/** Bit of a chunk type that means an error. */
const ERROR_BIT = 0x8000;

/** Turns a server's bytes into finished requests. Throws {@linkcode ProtocolError} and is dead then. */
export class ReplyParser {
  readonly #sink: ReplySink;
  readonly #form: ReplyForm;
  readonly #buffer = new Uint8Array(BUFFER_SIZE);
  readonly #view = new DataView(this.#buffer.buffer);
  #start = 0;
  #end = 0;

  /** The reply in hand; nothing between replies. */
  #request: ClientRequest | undefined;
  #cookieLow = 0;
  #done = false;
  /** Type of the chunk in hand whose fixed part is still to come, with its length. */
  #chunk: number | undefined;
  #chunkLength = 0;
  /** READ data to come, and where it goes in the request's buffer. */
  #dataLeft = 0;
  #dataAt = 0;
  #direct = false;
  #extentsLeft = 0;

  /** Starts at the first byte of the transmission phase. */
  constructor(sink: ReplySink, form: ReplyForm) {
    this.#sink = sink;
    this.#form = form;
  }

  /** Where the next bytes of the stream go; never empty. */
  room(): Uint8Array {
    this.#direct = this.#start === this.#end && this.#dataLeft >= DIRECT_MINIMUM;
    if (this.#direct) {
      return this.#request!.data.subarray(this.#dataAt, this.#dataAt + this.#dataLeft);
    }
    this.#buffer.copyWithin(0, this.#start, this.#end);
    this.#end -= this.#start;
    this.#start = 0;
    return this.#buffer.subarray(this.#end);
  }

  /** Takes `count` bytes that were put into {@linkcode room}. */
  take(count: number): void {
    if (this.#direct) {
      this.#dataAt += count;
      this.#dataLeft -= count;
      if (this.#dataLeft === 0) this.#endChunk();
    } else {
      this.#end += count;
    }
    while (this.#step());
  }

  /** Takes the next piece; false where more bytes are needed for it. */
  #step(): boolean {
    if (this.#dataLeft > 0) return this.#stepData();
    if (this.#extentsLeft > 0) return this.#stepExtent();
    if (this.#chunk !== undefined) return this.#stepChunk(this.#chunk);
    return this.#stepHeader();
  }

  #stepHeader(): boolean {
    const at = this.#start;
    if (this.#end - at < SIZE.SIMPLE_REPLY) return false;
    const magic = this.#view.getUint32(at);
    if (magic === MAGIC.SIMPLE_REPLY) {
      this.#start += SIZE.SIMPLE_REPLY;
      this.#beginReply(at + 8);
      this.#done = true;
      this.#simple(this.#request!, this.#view.getUint32(at + 4));
      return true;
    }
    if (magic !== MAGIC.STRUCTURED_REPLY) {
      throw new ProtocolError(
        `A reply starts with 0x${magic.toString(16)}, which is no magic number`,
      );
    }
    if (!this.#form.structured) {
      throw new ProtocolError("A reply is structured, which was not negotiated");
    }
    if (this.#end - at < SIZE.STRUCTURED_REPLY) return false;
    this.#start += SIZE.STRUCTURED_REPLY;
    this.#done = (this.#view.getUint16(at + 4) & CHUNK_DONE) !== 0;
    this.#beginReply(at + 8);
    this.#beginChunk(this.#view.getUint16(at + 6), this.#view.getUint32(at + 16));
    return true;
  }

  #beginReply(cookieAt: number): void {
    const high = this.#view.getUint32(cookieAt);
    this.#cookieLow = this.#view.getUint32(cookieAt + 4);
    this.#request = this.#sink.find(high, this.#cookieLow);
    if (this.#request !== undefined) return;
    throw new ProtocolError(
      `A reply has the cookie ${high}:${this.#cookieLow}, which no request waits for`,
    );
  }

  #simple(request: ClientRequest, error: number): void {
    if (this.#form.structured && request.command === COMMAND.READ) {
      throw new ProtocolError("The reply to a READ is simple although structured was negotiated");
    }
    if (error !== 0) {
      request.error = error;
    } else if (request.command === COMMAND.READ) {
      this.#beginData(request, 0, request.length);
      return;
    } else if (request.command === COMMAND.BLOCK_STATUS) {
      throw new ProtocolError("The reply to a BLOCK_STATUS is simple and no error");
    }
    this.#endChunk();
  }

  /** Judges a chunk by its head alone, so that no wrong length is waited for. */
  #beginChunk(type: number, length: number): void {
    const { command } = this.#request!;
    if (!mayAnswer(command, type, length, this.#done)) {
      throw new ProtocolError(
        `A chunk of type ${type} and ${length} bytes${this.#done ? ", the last," : ""} does not ` +
          `answer command ${command}`,
      );
    }
    this.#chunk = type;
    this.#chunkLength = length;
  }

  /** Takes the fixed part of a chunk. */
  #stepChunk(type: number): boolean {
    const at = this.#start;
    const fixed = fixedPart(type, this.#chunkLength);
    if (this.#end - at < fixed) return false;
    this.#start += fixed;
    this.#chunk = undefined;
    const request = this.#request!;
    if ((type & ERROR_BIT) !== 0) {
      this.#takeError(request, type, at);
    } else if (type === CHUNK.OFFSET_DATA) {
      this.#beginData(request, this.#offset(request, at), this.#chunkLength - 8);
      return true;
    } else if (type === CHUNK.OFFSET_HOLE) {
      this.#takeHole(request, this.#offset(request, at), this.#view.getUint32(at + 8));
    } else if (type === CHUNK.BLOCK_STATUS) {
      this.#beginExtents(request, this.#view.getUint32(at));
      return true;
    }
    this.#endChunk();
    return true;
  }

  /** An offset in the export as one in the request; out of the request where it is negative. */
  #offset(request: ClientRequest, at: number): number {
    return this.#view.getUint32(at) * 2 ** 32 + this.#view.getUint32(at + 4) - request.offset;
  }

  #cover(request: ClientRequest, start: number, length: number): void {
    if (start < 0 || length === 0 || start + length > request.length) {
      throw new ProtocolError("A chunk lies outside the READ that it answers");
    }
    if (!request.coverage.add(start, start + length)) {
      throw new ProtocolError("The chunks that answer a READ overlap, or leave too many gaps");
    }
  }

  #beginData(request: ClientRequest, start: number, length: number): void {
    this.#cover(request, start, length);
    this.#dataAt = start;
    this.#dataLeft = length;
  }

  #stepData(): boolean {
    const count = Math.min(this.#dataLeft, this.#end - this.#start);
    if (count === 0) return false;
    const bytes = this.#buffer.subarray(this.#start, this.#start + count);
    this.#request!.data.set(bytes, this.#dataAt);
    this.#start += count;
    this.#dataAt += count;
    this.#dataLeft -= count;
    if (this.#dataLeft === 0) this.#endChunk();
    return true;
  }

  #takeHole(request: ClientRequest, start: number, length: number): void {
    this.#cover(request, start, length);
    request.data.fill(0, start, start + length);
  }

  #beginExtents(request: ClientRequest, context: number): void {
    if (context !== this.#form.allocation) {
      throw new ProtocolError(
        `A status is of the meta context ${context}, which was not asked for`,
      );
    }
    if (request.received > 0) {
      throw new ProtocolError("A BLOCK_STATUS is answered twice for one meta context");
    }
    this.#extentsLeft = (this.#chunkLength - 4) / 8;
  }

  #stepExtent(): boolean {
    const request = this.#request!;
    while (this.#extentsLeft > 0 && this.#end - this.#start >= 8) {
      const length = this.#view.getUint32(this.#start);
      if (length === 0 || request.received >= request.length) {
        throw new ProtocolError("A status has an extent that is empty or beyond its BLOCK_STATUS");
      }
      request.addExtent(length, this.#view.getUint32(this.#start + 4));
      this.#start += 8;
      this.#extentsLeft--;
    }
    if (this.#extentsLeft > 0) return false;
    this.#endChunk();
    return true;
  }

  #takeError(request: ClientRequest, type: number, at: number): void {
    const error = this.#view.getUint32(at);
    const messageLength = this.#view.getUint16(at + 4);
    const after = this.#chunkLength - 6 - messageLength;
    const wanted = type === CHUNK.ERROR ? 0 : type === CHUNK.ERROR_OFFSET ? 8 : Math.max(after, 0);
    if (error === 0 || messageLength > LIMIT.STRING || after !== wanted) {
      throw new ProtocolError(
        `An error chunk of ${this.#chunkLength} bytes has the error ${error} and a message of ` +
          `${messageLength} bytes, which does not fit`,
      );
    }
    if (type === CHUNK.ERROR_OFFSET) {
      const offset = this.#offset(request, at + 6 + messageLength);
      if (offset < 0 || offset > request.length) {
        throw new ProtocolError("An error chunk names an offset outside its request");
      }
    }
    if (++request.errorCount > ERROR_COUNT_LIMIT) {
      throw new ProtocolError(`A reply has more than ${ERROR_COUNT_LIMIT} errors`);
    }
    if (request.error !== 0) return;
    request.error = error;
    const bytes = this.#buffer.subarray(at + 6, at + 6 + messageLength);
    request.message = new TextDecoder().decode(bytes);
  }

  /** The end of a chunk, or of a simple reply; the end of the request where it was the last. */
  #endChunk(): void {
    const request = this.#request!;
    this.#request = undefined;
    if (!this.#done) return;
    if (request.error === 0) this.#checkComplete(request);
    this.#sink.finish(request, this.#cookieLow, request.error, request.message);
  }

  #checkComplete(request: ClientRequest): void {
    if (request.command === COMMAND.READ && !request.coverage.isComplete(request.length)) {
      throw new ProtocolError("The last chunk that answers a READ came before all of its data");
    }
    if (request.command === COMMAND.BLOCK_STATUS && request.received === 0) {
      throw new ProtocolError("The last chunk that answers a BLOCK_STATUS came without a status");
    }
  }
}

/** Whether a chunk of this head can answer a command. */
function mayAnswer(command: number, type: number, length: number, done: boolean): boolean {
  if ((type & ERROR_BIT) !== 0) return length >= 6 && length <= LIMIT.STRING + ERROR_FIXED_LIMIT;
  switch (type) {
    case CHUNK.NONE:
      return length === 0 && done;
    case CHUNK.OFFSET_DATA:
      return command === COMMAND.READ && length > 8;
    case CHUNK.OFFSET_HOLE:
      return command === COMMAND.READ && length === 12;
    case CHUNK.BLOCK_STATUS: {
      const extents = (length - 4) / 8;
      return command === COMMAND.BLOCK_STATUS && Number.isInteger(extents) && extents >= 1 &&
        extents <= CHUNK_EXTENT_LIMIT;
    }
    default:
      return false;
  }
}

/** Bytes of a chunk before what is streamed; all of it where nothing is. */
function fixedPart(type: number, length: number): number {
  if (type === CHUNK.OFFSET_DATA) return 8;
  return type === CHUNK.BLOCK_STATUS ? 4 : length;
}
