/**
 * Requests of the transmission phase as the server judges them: what each command may carry and
 * which error answers the rest (doc/proto.md, "Request message" and "Error values").
 *
 * @module
 */
import { errorCode } from "../backend/errors.ts";
import { COMMAND, COMMAND_FLAG, FLAG, LIMIT, NBD_ERROR } from "./constants.ts";

const FLAGS_ALLOWED: Record<number, number> = {
  [COMMAND.READ]: COMMAND_FLAG.FUA | COMMAND_FLAG.DF,
  [COMMAND.WRITE]: COMMAND_FLAG.FUA,
  [COMMAND.DISC]: COMMAND_FLAG.FUA,
  [COMMAND.FLUSH]: COMMAND_FLAG.FUA,
  [COMMAND.TRIM]: COMMAND_FLAG.FUA,
  [COMMAND.CACHE]: COMMAND_FLAG.FUA,
  [COMMAND.WRITE_ZEROES]: COMMAND_FLAG.FUA | COMMAND_FLAG.NO_HOLE | COMMAND_FLAG.FAST_ZERO,
  [COMMAND.BLOCK_STATUS]: COMMAND_FLAG.FUA | COMMAND_FLAG.REQ_ONE,
};

/** What the rules depend on, beside the request itself. */
export interface RequestContext {
  /** Bytes of the export. */
  size: number;
  /** Transmission flags that the client was told. */
  flags: number;
  /** Whether `base:allocation` was negotiated. */
  allocation: boolean;
}

/**
 * The error that refuses a request, or 0 where it is fine. `offset` may be rounded when it is over
 * 2^53: it is beyond any export then.
 */
export function refusal(
  context: RequestContext,
  command: number,
  flags: number,
  offset: number,
  length: number,
): number {
  const allowed = FLAGS_ALLOWED[command];
  if (allowed === undefined || (flags & ~allowed) !== 0) return NBD_ERROR.EINVAL;
  const beyond = offset > context.size || length > context.size - offset;
  switch (command) {
    case COMMAND.READ:
      return beyond || length > LIMIT.PAYLOAD ? NBD_ERROR.EINVAL : 0;
    case COMMAND.WRITE:
      if ((context.flags & FLAG.READ_ONLY) !== 0) return NBD_ERROR.EPERM;
      if (length > LIMIT.PAYLOAD) return NBD_ERROR.EINVAL;
      return beyond ? NBD_ERROR.ENOSPC : 0;
    case COMMAND.WRITE_ZEROES:
      if ((context.flags & FLAG.READ_ONLY) !== 0) return NBD_ERROR.EPERM;
      return beyond ? NBD_ERROR.ENOSPC : 0;
    case COMMAND.TRIM:
      if ((context.flags & FLAG.READ_ONLY) !== 0) return NBD_ERROR.EPERM;
      return beyond ? NBD_ERROR.EINVAL : 0;
    case COMMAND.FLUSH:
      return offset !== 0 || length !== 0 ? NBD_ERROR.EINVAL : 0;
    case COMMAND.BLOCK_STATUS:
      return beyond || length === 0 || !context.allocation ? NBD_ERROR.EINVAL : 0;
    default:
      return beyond ? NBD_ERROR.EINVAL : 0;
  }
}

const BY_CODE: Record<string, number> = {
  EPERM: NBD_ERROR.EPERM,
  EACCES: NBD_ERROR.EPERM,
  EROFS: NBD_ERROR.EPERM,
  ENOMEM: NBD_ERROR.ENOMEM,
  EINVAL: NBD_ERROR.EINVAL,
  ENOSPC: NBD_ERROR.ENOSPC,
  EDQUOT: NBD_ERROR.ENOSPC,
  EFBIG: NBD_ERROR.ENOSPC,
  ESHUTDOWN: NBD_ERROR.ESHUTDOWN,
};

/** The protocol's number for what a backend threw; ENOTSUP is for FAST_ZERO alone. */
export function nbdError(error: unknown): number {
  return BY_CODE[errorCode(error)] ?? NBD_ERROR.EIO;
}
