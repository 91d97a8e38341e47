/**
 * Puts messages of a migration together and takes them apart, as `messages.ts` lays them out. Pure.
 *
 * @module
 */
import { bounded, malformed, MessageReader, MessageWriter } from "./message_fields.ts";
import {
  DIGEST_BYTES,
  MESSAGE_LIMIT,
  ROOT_BYTES,
  type SeederReply,
  type SeederRequest,
  type SeederState,
} from "./messages.ts";

const REQUESTS = {
  ...{ track: 1, dirty: 2, suspend: 3, last: 4, confirm: 5 },
  ...{ outcome: 6, done: 7, cancel: 8, digests: 9, throttle: 10, root: 11 },
} as const satisfies Record<SeederRequest["type"], number>;
const REPLIES = {
  tracked: 1,
  dirty: 2,
  offer: 3,
  piece: 4,
  outcome: 5,
  digests: 6,
  root: 7,
} as const satisfies Record<SeederReply["type"], number>;
const STATES = { serving: 1, offered: 2, given: 3, released: 4 } as const satisfies Record<
  SeederState,
  number
>;
const PIECE_HEADER_BYTES = 12;
/** The longest message with a piece. */
export const PIECE_BYTES = PIECE_HEADER_BYTES + MESSAGE_LIMIT.PIECE;

/** The bytes of a request. Throws `RangeError` for what is over a limit. */
export function encodeRequest(request: SeederRequest): Uint8Array<ArrayBuffer> {
  const message = new MessageWriter(REQUESTS[request.type]);
  message.id(request.leech);
  switch (request.type) {
    case "track":
      message.u32(request.chunkSize);
      break;
    case "dirty":
      message.id(request.trackId);
      message.u64(request.generation);
      break;
    case "suspend":
      message.id(request.trackId);
      message.u64(request.generation);
      message.u64(request.epoch);
      message.u32(request.timeout);
      break;
    case "last":
      message.u64(request.epoch);
      message.u32(request.index);
      break;
    case "confirm":
    case "outcome":
    case "done":
    case "cancel":
    case "root":
      message.u64(request.epoch);
      break;
    case "digests":
      message.u64(request.chunk);
      message.u32(bounded(request.count, 1, MESSAGE_LIMIT.DIGESTS, "chunks"));
      break;
    case "throttle":
      message.u64(request.rate);
      message.u32(request.milliseconds);
      break;
  }
  return message.bytes();
}

/**
 * Decodes a request.
 *
 * @throws {ProtocolError} It is not well-formed, or of a version or type that is not known.
 */
export function decodeRequest(bytes: Uint8Array): SeederRequest {
  const message = new MessageReader(bytes);
  const type = nameOf(REQUESTS, message.type, "request");
  const request = requestOf(type, message.id(), message);
  message.end();
  return request;
}

/** The bytes of a reply. Throws `RangeError` for what is over a limit. */
export function encodeReply(reply: SeederReply): Uint8Array<ArrayBuffer> {
  const message = new MessageWriter(REPLIES[reply.type]);
  switch (reply.type) {
    case "tracked":
      message.id(reply.trackId);
      message.u64(reply.epoch);
      message.u64(reply.size);
      message.u64(reply.generation);
      message.u32(reply.chunkSize);
      return message.bytes();
    case "dirty":
      message.u64(reply.generation);
      message.u64(reply.written);
      message.ranges(reply.ranges, reply.more);
      return message.bytes();
    case "offer":
      message.u64(reply.generation);
      message.u64(reply.epoch);
      message.milliseconds(reply.prepareMs);
      message.milliseconds(reply.suspendMs);
      message.milliseconds(reply.flushMs);
      message.ranges(reply.ranges, reply.more);
      return message.bytes();
    case "piece":
      bounded(reply.content.length, 0, MESSAGE_LIMIT.PIECE, "bytes of content");
      message.u64(reply.index);
      return message.bytes(reply.content);
    case "outcome":
      message.u32(STATES[reply.state]);
      message.u64(reply.epoch);
      message.id(reply.leech);
      return message.bytes();
    case "digests":
      bounded(reply.digests.length, 0, MESSAGE_LIMIT.DIGESTS * DIGEST_BYTES, "bytes of digests");
      message.u64(reply.chunk);
      return message.bytes(reply.digests);
    case "root":
      bounded(reply.root.length, ROOT_BYTES, ROOT_BYTES, "bytes of a root digest");
      return message.bytes(reply.root);
  }
}

/**
 * The bytes of a piece, whose content of so many bytes is still to be put in place; in memory that has
 * room for {@linkcode PIECE_BYTES}, where that is given.
 */
export function encodePiece(
  index: number,
  length: number,
  room = new Uint8Array(PIECE_HEADER_BYTES + length),
): { message: Uint8Array<ArrayBuffer>; content: Uint8Array } {
  bounded(length, 0, MESSAGE_LIMIT.PIECE, "bytes of content");
  const header = new MessageWriter(REPLIES.piece);
  header.u64(index);
  room.set(header.bytes());
  const message = room.subarray(0, PIECE_HEADER_BYTES + length);
  return { message, content: message.subarray(PIECE_HEADER_BYTES) };
}

/**
 * Decodes a reply. Content and digests are not copied.
 *
 * @throws {ProtocolError} It is not well-formed, or of a version or type that is not known.
 */
export function decodeReply(bytes: Uint8Array): SeederReply {
  const message = new MessageReader(bytes);
  const reply = replyOf(nameOf(REPLIES, message.type, "reply"), message);
  message.end();
  return reply;
}

function requestOf(
  type: SeederRequest["type"],
  leech: Uint8Array,
  message: MessageReader,
): SeederRequest {
  switch (type) {
    case "track": {
      const chunkSize = message.u32();
      if (chunkSize === 0) throw malformed("its chunks are empty");
      return { type, leech, chunkSize };
    }
    case "dirty":
      return { type, leech, trackId: message.id(), generation: message.u64() };
    case "suspend":
      return {
        ...{ type, leech, trackId: message.id(), generation: message.u64() },
        ...{ epoch: message.u64(), timeout: message.u32() },
      };
    case "last":
      return { type, leech, epoch: message.u64(), index: message.u32() };
    case "confirm":
    case "outcome":
    case "done":
    case "cancel":
    case "root":
      return { type, leech, epoch: message.u64() };
    case "digests": {
      const chunk = message.u64(), count = message.u32();
      if (count > 0 && count <= MESSAGE_LIMIT.DIGESTS) return { type, leech, chunk, count };
      throw malformed(`it asks for ${count} digests`);
    }
    case "throttle":
      return { type, leech, rate: message.u64(), milliseconds: message.u32() };
  }
}

function replyOf(type: SeederReply["type"], message: MessageReader): SeederReply {
  switch (type) {
    case "tracked": {
      const trackId = message.id(), epoch = message.u64(), size = message.u64();
      const generation = message.u64(), chunkSize = message.u32();
      if (chunkSize === 0) throw malformed("its chunks are empty");
      return { type, trackId, epoch, size, chunkSize, generation };
    }
    case "dirty":
      return { type, generation: message.u64(), written: message.u64(), ...message.ranges() };
    case "offer":
      return {
        ...{ type, generation: message.u64(), epoch: message.u64() },
        ...{ prepareMs: message.milliseconds() },
        ...{ suspendMs: message.milliseconds(), flushMs: message.milliseconds() },
        ...message.ranges(),
      };
    case "piece":
      return { type, index: message.u64(), content: message.rest(MESSAGE_LIMIT.PIECE) };
    case "outcome": {
      const state = nameOf(STATES, message.u32(), "state");
      return { type, state, epoch: message.u64(), leech: message.id() };
    }
    case "digests": {
      const chunk = message.u64();
      const digests = message.rest(MESSAGE_LIMIT.DIGESTS * DIGEST_BYTES);
      if (digests.length % DIGEST_BYTES !== 0) throw malformed("a digest is cut");
      return { type, chunk, digests };
    }
    case "root": {
      const root = message.rest(ROOT_BYTES);
      if (root.length < ROOT_BYTES) throw malformed("its digest is cut");
      return { type, root };
    }
  }
}

function nameOf<Name extends string>(
  numbers: Readonly<Record<Name, number>>,
  number: number,
  what: string,
): Name {
  for (const name in numbers) if (numbers[name] === number) return name;
  throw malformed(`there is no ${what} ${number}`);
}
