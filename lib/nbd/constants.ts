/**
 * Numbers of the NBD protocol, fixed newstyle (NetworkBlockDevice/nbd, doc/proto.md). All integers
 * on the wire are big-endian.
 *
 * @module
 */

/** First words of the handshake; u64 each, as high and low half. */
export const MAGIC = {
  /** "NBDMAGIC" */
  INIT_HIGH: 0x4e42444d,
  INIT_LOW: 0x41474943,
  /** "IHAVEOPT" */
  OPTION_HIGH: 0x49484156,
  OPTION_LOW: 0x454f5054,
  /** 0x0003e889045565a9: before each option reply */
  OPTION_REPLY_HIGH: 0x0003e889,
  OPTION_REPLY_LOW: 0x045565a9,
  REQUEST: 0x25609513,
  SIMPLE_REPLY: 0x67446698,
  STRUCTURED_REPLY: 0x668e33ef,
} as const;

/** Flags of the handshake, server and client. */
export const HANDSHAKE = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;

/** Option ids. */
export const OPTION = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  PEEK_EXPORT: 4,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;

/** Option reply types; errors have bit 31 set. */
export const REPLY = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x8000_0001,
  ERR_POLICY: 0x8000_0002,
  ERR_INVALID: 0x8000_0003,
  ERR_PLATFORM: 0x8000_0004,
  ERR_TLS_REQD: 0x8000_0005,
  ERR_UNKNOWN: 0x8000_0006,
  ERR_SHUTDOWN: 0x8000_0007,
  ERR_BLOCK_SIZE_REQD: 0x8000_0008,
  ERR_TOO_BIG: 0x8000_0009,
} as const;

/** Information types of INFO and GO. */
export const INFO = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

/** Transmission flags of an export. */
export const FLAG = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  ROTATIONAL: 1 << 4,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_CACHE: 1 << 10,
  SEND_FAST_ZERO: 1 << 11,
} as const;

/** Commands of the transmission phase. */
export const COMMAND = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

/** Command flags. */
export const COMMAND_FLAG = {
  FUA: 1,
  NO_HOLE: 2,
  DF: 4,
  REQ_ONE: 8,
  FAST_ZERO: 16,
} as const;

/** Chunk types of structured replies; errors have bit 15 set. */
export const CHUNK = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;

/** Flag of a structured reply's last chunk. */
export const CHUNK_DONE = 1;

/** Error numbers of replies, fixed by the protocol. */
export const NBD_ERROR = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** The one meta context here, and its state flags. */
export const ALLOCATION = { NAME: "base:allocation", HOLE: 1, ZERO: 2 } as const;

/** Bytes of fixed parts of messages. */
export const SIZE = {
  GREETING: 18,
  CLIENT_FLAGS: 4,
  OPTION_HEADER: 16,
  OPTION_REPLY_HEADER: 20,
  /** Without the zeroes that follow where NO_ZEROES is not negotiated. */
  EXPORT_NAME_REPLY: 10,
  REQUEST: 28,
  SIMPLE_REPLY: 16,
  STRUCTURED_REPLY: 20,
} as const;

/** Limits of the protocol and of this implementation, in bytes. */
export const LIMIT = {
  /** Of any string (spec). */
  STRING: 4096,
  /** Of one request's payload, as we advertise and serve it. */
  PAYLOAD: 32 << 20,
} as const;

/** The port that IANA gave to NBD. */
export const DEFAULT_PORT = 10809;
