/**
 * Requests of the transmission phase as the server judges them: what each command may carry and
 * which error answers the rest (doc/proto.md, "Request message" and "Error values").
 *
 * @module
 */
import { errorCode } from "../backend/errors.ts";
import { COMMAND, COMMAND_FLAG, FLAG, LIMIT, NBD_ERROR } from "./constants.ts";

/** What a command may carry, and what must have been offered to the client for it. */
interface Rule {
  /** Command flags. */
  flags: number;
  /** Transmission flag that offers it; 0: every export has it. */
  offer: number;
  /** Whether it changes the export. */
  writes: boolean;
  /** The answer to a range that is not all inside. */
  outside: number;
}

const { EINVAL, ENOSPC } = NBD_ERROR;
const { FUA, DF, REQ_ONE, NO_HOLE, FAST_ZERO } = COMMAND_FLAG;

const RULES: readonly Rule[] = Object.assign<Rule[], Record<number, Rule>>([], {
  [COMMAND.READ]: { flags: FUA | DF, offer: 0, writes: false, outside: EINVAL },
  [COMMAND.WRITE]: { flags: FUA, offer: 0, writes: true, outside: ENOSPC },
  [COMMAND.FLUSH]: { flags: FUA, offer: FLAG.SEND_FLUSH, writes: false, outside: EINVAL },
  [COMMAND.TRIM]: { flags: FUA, offer: FLAG.SEND_TRIM, writes: true, outside: EINVAL },
  // Some clients send it without a look at the flags.
  [COMMAND.CACHE]: { flags: FUA, offer: 0, writes: false, outside: EINVAL },
  [COMMAND.WRITE_ZEROES]: {
    flags: FUA | NO_HOLE | FAST_ZERO,
    offer: FLAG.SEND_WRITE_ZEROES,
    writes: true,
    outside: ENOSPC,
  },
  [COMMAND.BLOCK_STATUS]: { flags: FUA | REQ_ONE, offer: 0, writes: false, outside: EINVAL },
});

/** Command flags that need an offer of their own, as they are without these offers. */
function offeredFlags(offers: number): number {
  let flags = NO_HOLE | REQ_ONE;
  if ((offers & FLAG.SEND_FUA) !== 0) flags |= FUA;
  if ((offers & FLAG.SEND_DF) !== 0) flags |= DF;
  if ((offers & FLAG.SEND_FAST_ZERO) !== 0) flags |= FAST_ZERO;
  return flags;
}

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
 * 2^53: it is beyond any export then. DISC has no reply and is not asked about.
 */
export function refusal(
  context: RequestContext,
  command: number,
  flags: number,
  offset: number,
  length: number,
): number {
  const rule = RULES[command];
  if (rule === undefined) return EINVAL;
  if (rule.writes && (context.flags & FLAG.READ_ONLY) !== 0) return NBD_ERROR.EPERM;
  if ((flags & ~(rule.flags & offeredFlags(context.flags))) !== 0) return EINVAL;
  if ((context.flags & rule.offer) !== rule.offer) return EINVAL;
  const carries = command === COMMAND.READ || command === COMMAND.WRITE;
  if (carries && length > LIMIT.PAYLOAD) return EINVAL;
  if (offset > context.size || length > context.size - offset) return rule.outside;
  if (command === COMMAND.FLUSH) return offset !== 0 || length !== 0 ? EINVAL : 0;
  if (command === COMMAND.BLOCK_STATUS) return length === 0 || !context.allocation ? EINVAL : 0;
  return 0;
}

const BY_CODE: ReadonlyMap<string, number> = new Map([
  ["EPERM", NBD_ERROR.EPERM],
  ["EACCES", NBD_ERROR.EPERM],
  ["EROFS", NBD_ERROR.EPERM],
  ["ENOMEM", NBD_ERROR.ENOMEM],
  ["EINVAL", NBD_ERROR.EINVAL],
  ["ENOSPC", NBD_ERROR.ENOSPC],
  ["EDQUOT", NBD_ERROR.ENOSPC],
  ["EFBIG", NBD_ERROR.ENOSPC],
  ["ESHUTDOWN", NBD_ERROR.ESHUTDOWN],
]);

/** The protocol's number for what a backend threw; ENOTSUP is for FAST_ZERO alone. */
export function nbdError(error: unknown): number {
  return BY_CODE.get(errorCode(error)) ?? NBD_ERROR.EIO;
}
