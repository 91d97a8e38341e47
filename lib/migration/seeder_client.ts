/**
 * A seeder as its leecher sees it: one method for each request of a migration. What the seeder
 * refuses arrives as `RemoteError` with its code: ESTALE where the track id is not the present one
 * any more, or this leecher does not follow, EBUSY where the region is offered to somebody else, EPERM where it was given to somebody
 * else, or the epoch is too low, burnt or not offered.
 *
 * @module
 */
import { ProtocolError } from "../backend/errors.ts";
import type { ControlOptions } from "../rpc/client.ts";
import { decodeReply, encodeRequest } from "./message_codec.ts";
import { DIGEST_BYTES, type SeederReply, type SeederRequest } from "./messages.ts";

/** Who carries messages to the seeder: a `RemoteBackend`. */
export interface ControlTarget {
  /** Sends a message, and answers what the controller says; see `RemoteBackend.control`. */
  control(message: Uint8Array, options?: ControlOptions): Promise<Uint8Array>;
}

type Reply<Type extends SeederReply["type"]> = Extract<SeederReply, { type: Type }>;
type Fields<Type extends SeederRequest["type"]> = Omit<
  Extract<SeederRequest, { type: Type }>,
  "type" | "leech"
>;

/** What answers may be waited for; see `RemoteBackend.control`. */
export type CallOptions = Pick<ControlOptions, "timeout" | "signal">;

/** See the module. Every call may be made again. */
export class SeederClient {
  readonly #target: ControlTarget;
  readonly #leech: Uint8Array;

  /** The id of the leecher that it speaks for. */
  get leech(): Uint8Array {
    return this.#leech;
  }

  /** Speaks for the leecher with this id of 16 bytes. */
  constructor(target: ControlTarget, leech: Uint8Array) {
    this.#target = target;
    this.#leech = leech;
  }

  /** Has writes noticed from now on. */
  track(fields: Fields<"track">, options?: CallOptions): Promise<Reply<"tracked">> {
    return this.#ask({ type: "track", leech: this.#leech, ...fields }, "tracked", options);
  }

  /** What was written since a generation. */
  dirty(fields: Fields<"dirty">, options?: CallOptions): Promise<Reply<"dirty">> {
    return this.#ask({ type: "dirty", leech: this.#leech, ...fields }, "dirty", options);
  }

  /** Has the program suspended, and the region offered. */
  suspend(fields: Fields<"suspend">, options?: CallOptions): Promise<Reply<"offer">> {
    return this.#ask({ type: "suspend", leech: this.#leech, ...fields }, "offer", options);
  }

  /** A piece of the last set; it comes behind large transfers. */
  last(
    fields: Fields<"last">,
    options?: CallOptions & Pick<ControlOptions, "room">,
  ): Promise<Reply<"piece">> {
    const request: SeederRequest = { type: "last", leech: this.#leech, ...fields };
    return this.#ask(request, "piece", { ...options, bulk: true });
  }

  /** Has the region given. */
  confirm(fields: Fields<"confirm">, options?: CallOptions): Promise<Reply<"outcome">> {
    return this.#ask({ type: "confirm", leech: this.#leech, ...fields }, "outcome", options);
  }

  /** What became of an epoch. */
  outcome(fields: Fields<"outcome">, options?: CallOptions): Promise<Reply<"outcome">> {
    return this.#ask({ type: "outcome", leech: this.#leech, ...fields }, "outcome", options);
  }

  /** Lets the seeder let go of the region. */
  done(fields: Fields<"done">, options?: CallOptions): Promise<Reply<"outcome">> {
    return this.#ask({ type: "done", leech: this.#leech, ...fields }, "outcome", options);
  }

  /** Has the program's writes slowed. */
  throttle(fields: Fields<"throttle">, options?: CallOptions): Promise<Reply<"outcome">> {
    return this.#ask({ type: "throttle", leech: this.#leech, ...fields }, "outcome", options);
  }

  /** Has this leecher forgotten, and nothing given to it under that epoch. */
  cancel(fields: Fields<"cancel">, options?: CallOptions): Promise<Reply<"outcome">> {
    return this.#ask({ type: "cancel", leech: this.#leech, ...fields }, "outcome", options);
  }

  /** Digests of chunks: of all that are asked for, or of fewer at the end of the region. */
  async digests(fields: Fields<"digests">, options?: CallOptions): Promise<Reply<"digests">> {
    const request: SeederRequest = { type: "digests", leech: this.#leech, ...fields };
    const reply = await this.#ask(request, "digests", { ...options, bulk: true });
    const fits = reply.chunk === fields.chunk && reply.digests.length > 0 &&
      reply.digests.length <= fields.count * DIGEST_BYTES;
    if (fits) return reply;
    throw new ProtocolError("Cannot use digests of other chunks than were asked for");
  }

  /** The root digest of what was given. */
  root(fields: Fields<"root">, options?: CallOptions): Promise<Reply<"root">> {
    return this.#ask({ type: "root", leech: this.#leech, ...fields }, "root", options);
  }

  async #ask<Type extends SeederReply["type"]>(
    request: SeederRequest,
    expected: Type,
    options: ControlOptions = {},
  ): Promise<Reply<Type>> {
    const reply = decodeReply(await this.#target.control(encodeRequest(request), options));
    if (isOf(reply, expected)) return reply;
    throw new ProtocolError(`Cannot take "${reply.type}" in reply to "${request.type}"`);
  }
}

function isOf<Type extends SeederReply["type"]>(
  reply: SeederReply,
  type: Type,
): reply is Reply<Type> {
  return reply.type === type;
}
