/**
 * The source of a migration, in the isolate that serves the region: notices writes, tells followers
 * of them, and gives the region away once.
 *
 * ```text
 *            suspend               suspended            confirm           recorded
 *  serving ----------> suspending ----------> offered ----------> giving ----------> given
 *     ^                    | failed              | deadline,                           | done
 *     |                    v                     | cancel, taken back                  v
 *     +----------------- resuming <--------------+                                  released
 * ```
 *
 * The program may write in `serving` alone, and whoever is given the region may write only behind
 * the answer that it is `given`: never both. An offer ends by itself; so a leecher that is gone costs
 * the program no more than the time of an offer. Each offer has an epoch of its own: an offer that was
 * taken back burns it, so that a late confirmation finds nothing. From `giving` on there is no way
 * back: the record may be on the disk, whatever its writing answers, and is tried again.
 *
 * @module
 */
import type { Awaitable } from "../backend/backend.ts";
import { DeadlineError, ReadOnlyError, TelemapError } from "../backend/errors.ts";
import { RangeList } from "../backend/range_list.ts";
import { ChunkDigests } from "../chunk/digests.ts";
import type { LockedBackend } from "../chunk/lock.ts";
import type { TrackedBackend } from "../chunk/track.ts";
import { type DirtySet, Followers } from "./followers.ts";
import {
  decodeRequest,
  encodeReply,
  MESSAGE_LIMIT,
  type SeederReply,
  type SeederRequest,
  type SeederState,
} from "./messages.ts";

/** What the core asks of those who have the program and the device. */
export interface SeededProgram {
  /** Brings what the program wrote to the region, as far as that goes while it runs. */
  flush(): Awaitable<void>;
  /** Has the program stop writing; answers when it has. */
  suspend(): Awaitable<void>;
  /** Lets the program go on. */
  resume(): Awaitable<void>;
  /** Writes down that the region was given under that epoch, durably. */
  recordGiven(epoch: number, leech: Uint8Array): Awaitable<void>;
  /** Writes down that whoever has the region now needs this one no more. */
  recordReleased(epoch: number, leech: Uint8Array): Awaitable<void>;
  /** Told of every change. */
  onState(state: SeederState | "suspending"): void;
}

/** How a {@linkcode SeederCore} works. */
export interface SeederCoreOptions {
  /** The region: what is written through `lock` is noticed by `track`, which it stands on. */
  lock: LockedBackend;
  /** See `lock`. */
  track: TrackedBackend;
  /** Bytes of a chunk. */
  chunkSize: number;
  /** The program. */
  program: SeededProgram;
  /** The highest epoch that was used before. */
  epoch: number;
  /** To whom the region was given before under that epoch, if it was; and whether it is released. */
  given?: { leech: Uint8Array; released: boolean } | undefined;
}

/** An offer that is open. */
interface Offer {
  readonly leech: string;
  readonly epoch: number;
  readonly set: DirtySet;
  readonly suspendMs: number;
  readonly flushMs: number;
  readonly deadline: ReturnType<typeof setTimeout>;
}

type State =
  | { at: "serving" }
  | { at: "suspending"; leech: string; epoch: number; offer: Promise<Offer> }
  | { at: "offered"; offer: Offer }
  | { at: "resuming"; over: Promise<void> }
  | { at: "giving"; leech: string; epoch: number; over: Promise<void> }
  | { at: "given"; leech: string; epoch: number }
  | { at: "released"; leech: string; epoch: number };

/** A follower that says nothing for so long gives its place to another one. */
const SILENT_MS = 10 * 60_000;
const RETRY_MS = 100;
/** How long a question for a piece waits for that for its offer. */
const ASKED_MS = 1000;
const NOBODY = new Uint8Array(16);

/** See the module. */
export class SeederCore {
  readonly #options: SeederCoreOptions;
  readonly #followers: Followers;
  readonly #digests: ChunkDigests;
  readonly #trackId = crypto.getRandomValues(new Uint8Array(16));
  #tracking = false;
  #writtenBytes = 0;
  #epoch: number;
  #state: State;
  #digesting: Promise<unknown> = Promise.resolve();
  /** Settles when an offer is asked for. */
  #asked: PromiseWithResolvers<void> | undefined;

  /** Serves the region, or what is left of it where it was given before. */
  constructor(options: SeederCoreOptions) {
    const { track, lock, chunkSize, given, epoch } = options;
    this.#options = options;
    this.#followers = new Followers({ size: track.size, chunkSize });
    this.#digests = new ChunkDigests(track, chunkSize);
    this.#epoch = epoch;
    if (given === undefined) this.#state = { at: "serving" };
    else {
      this.#state = {
        at: given.released ? "released" : "given",
        leech: nameOf(given.leech),
        epoch,
      };
      lock.refuse(fenced(epoch));
    }
  }

  /** Where the handover is. */
  get state(): SeederState | "suspending" {
    const { at } = this.#state;
    if (at === "giving") return "offered";
    return at === "resuming" ? "suspending" : at;
  }

  /** Answers a message of a leecher. Throws what it is refused with. */
  readonly control = async (message: Uint8Array<ArrayBuffer>): Promise<Uint8Array> => {
    return encodeReply(await this.#answer(decodeRequest(message)));
  };

  /** Takes back what is offered, as the program is to go on here. Throws EBUSY where it is given. */
  async takeBack(): Promise<void> {
    const state = this.#state;
    if (state.at === "suspending") await state.offer.catch(() => {});
    if (this.#state.at === "offered") await this.#takeBack();
    else if (this.#state.at === "resuming") await this.#state.over;
    else if (this.#state.at !== "serving") {
      throw new TelemapError("EBUSY", "Cannot take back a region that was given away");
    }
  }

  /** Ends what goes by time. */
  close(): void {
    if (this.#state.at === "offered") clearTimeout(this.#state.offer.deadline);
  }

  async #answer(request: SeederRequest): Promise<SeederReply> {
    const leech = nameOf(request.leech);
    switch (request.type) {
      case "track":
        return this.#track(leech);
      case "dirty":
        return await this.#dirty(request, leech);
      case "suspend":
        return await this.#suspend(request, leech);
      case "last":
        return await this.#last(request, leech);
      case "confirm":
        return await this.#confirm(request, leech);
      case "outcome":
        return this.#outcome();
      case "done":
        return await this.#done(request, leech);
      case "cancel":
        return await this.#cancel(leech);
      case "digests":
        return await this.#digestsOf(request.chunk, request.count);
    }
  }

  #track(leech: string): SeederReply {
    const { track, chunkSize } = this.#options;
    if (!this.#tracking) track.start();
    this.#tracking = true;
    this.#followers.add(leech, performance.now(), SILENT_MS);
    const { size } = track;
    const trackId = this.#trackId, epoch = this.#epoch;
    return { type: "tracked", trackId, epoch, size, chunkSize, generation: 0 };
  }

  async #dirty(
    { trackId, generation }: Extract<SeederRequest, { type: "dirty" }>,
    leech: string,
  ): Promise<SeederReply> {
    this.#checkTracked(trackId);
    if (this.#state.at === "serving") await this.#options.program.flush();
    this.#collect();
    const set = this.#followers.tell(leech, generation, performance.now());
    return { type: "dirty", ...set, written: this.#writtenBytes };
  }

  async #suspend(
    request: Extract<SeederRequest, { type: "suspend" }>,
    leech: string,
  ): Promise<SeederReply> {
    this.#checkTracked(request.trackId);
    if (this.#state.at === "resuming") await this.#state.over;
    const state = this.#state;
    const open = state.at === "suspending" || state.at === "giving"
      ? state
      : state.at === "offered"
      ? state.offer
      : undefined;
    if (open !== undefined && !(open.leech === leech && open.epoch === request.epoch)) {
      throw new TelemapError("EBUSY", "Cannot offer a region that is offered to somebody else");
    }
    if (state.at === "suspending") return offerReply(await state.offer);
    if (state.at === "offered") return offerReply(state.offer);
    if (state.at !== "serving" || request.epoch <= this.#epoch) throw notOffered(request.epoch);
    this.#epoch = request.epoch;
    const offer = this.#makeOffer(request, leech);
    this.#enter({ at: "suspending", leech, epoch: request.epoch, offer });
    this.#asked?.resolve();
    this.#asked = undefined;
    return offerReply(await offer);
  }

  /** Suspends the program, and offers what it has written last. */
  async #makeOffer(
    { generation, epoch, timeout }: Extract<SeederRequest, { type: "suspend" }>,
    leech: string,
  ): Promise<Offer> {
    const { program, lock } = this.#options;
    try {
      const start = performance.now();
      await within(timeout, Promise.resolve(program.suspend()), "suspend the program");
      const suspended = performance.now();
      await within(timeout, Promise.resolve(program.flush()), "flush what the program wrote");
      await lock.lock("writes", timeout);
      const flushMs = performance.now() - suspended;
      this.#collect();
      const set = this.#followers.tell(leech, generation, performance.now());
      const deadline = setTimeout(() => void this.#expire(epoch), timeout);
      const suspendMs = suspended - start;
      const offer: Offer = { leech, epoch, set, suspendMs, flushMs, deadline };
      this.#enter({ at: "offered", offer });
      return offer;
    } catch (error) {
      await this.#resume();
      throw error;
    }
  }

  async #expire(epoch: number): Promise<void> {
    const state = this.#state;
    if (state.at === "offered" && state.offer.epoch === epoch) await this.#takeBack();
  }

  async #takeBack(): Promise<void> {
    if (this.#state.at !== "offered") return;
    clearTimeout(this.#state.offer.deadline);
    await this.#resume();
  }

  /** Lets the program go on. */
  async #resume(): Promise<void> {
    const resume = async () => {
      this.#options.lock.release("writes");
      await this.#options.program.resume();
    };
    const over = resume().catch((error: Error) => {
      console.warn(`Cannot resume the program: ${error.message}`);
    });
    this.#enter({ at: "resuming", over });
    await over;
    this.#enter({ at: "serving" });
  }

  /** A piece of the content that was written last. */
  async #last(
    { epoch, index }: Extract<SeederRequest, { type: "last" }>,
    leech: string,
  ): Promise<SeederReply> {
    await this.#whenAsked(epoch);
    const state = this.#state;
    const offer = state.at === "suspending"
      ? await state.offer
      : state.at === "offered"
      ? state.offer
      : undefined;
    if (offer?.leech !== leech || offer.epoch !== epoch) throw notOffered(epoch);
    const place = pieceOf(offer.set.ranges, index);
    const content = new Uint8Array(place?.length ?? 0);
    if (place !== undefined) await this.#options.track.readAt(content, place.offset);
    return { type: "piece", offset: place?.offset ?? 0, content };
  }

  /** The question for a piece may have come on another connection than that for the offer, and first. */
  async #whenAsked(epoch: number): Promise<void> {
    if (this.#state.at !== "serving" || epoch <= this.#epoch) return;
    const asked = this.#asked ??= Promise.withResolvers();
    const timer = setTimeout(asked.resolve, ASKED_MS);
    await asked.promise;
    clearTimeout(timer);
  }

  async #confirm(
    { epoch }: Extract<SeederRequest, { type: "confirm" }>,
    leech: string,
  ): Promise<SeederReply> {
    const state = this.#state;
    if (state.at === "offered" && state.offer.leech === leech && state.offer.epoch === epoch) {
      clearTimeout(state.offer.deadline);
      this.#enter({ at: "giving", leech, epoch, over: this.#give(leech, epoch) });
    }
    const giving = this.#state;
    if (giving.at === "giving" && giving.leech === leech) await giving.over;
    const { at } = this.#state;
    if ((at === "given" || at === "released") && this.#isGivenTo(leech, epoch)) {
      return this.#outcome();
    }
    throw notOffered(epoch);
  }

  /** Gives the region away. The record is tried for as long as it takes, as it may be there. */
  async #give(leech: string, epoch: number): Promise<void> {
    const { program, lock } = this.#options;
    for (let told = false;; told = true) {
      try {
        await program.recordGiven(epoch, bytesOf(leech));
        break;
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        if (!told) console.warn(`Cannot write down that the region is given, trying on: ${why}`);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
    lock.refuse(fenced(epoch));
    this.#enter({ at: "given", leech, epoch });
    void this.#flushGiven();
  }

  /** What is fetched later has to outlive this host; nobody waits for that. */
  async #flushGiven(): Promise<void> {
    try {
      await this.#options.track.flush();
    } catch (error) {
      console.warn(`Cannot flush a region that was given away: ${(error as Error).message}`);
    }
  }

  #outcome(): SeederReply {
    const state = this.#state;
    const held = state.at === "offered" ? state.offer : "leech" in state ? state : undefined;
    const leech = held === undefined ? NOBODY : bytesOf(held.leech);
    const told: SeederState =
      state.at === "given" || state.at === "released" || state.at === "offered"
        ? state.at
        : state.at === "giving"
        ? "offered"
        : "serving";
    return { type: "outcome", state: told, epoch: held?.epoch ?? this.#epoch, leech };
  }

  async #done(
    { epoch }: Extract<SeederRequest, { type: "done" }>,
    leech: string,
  ): Promise<SeederReply> {
    if (!this.#isGivenTo(leech, epoch)) throw notOffered(epoch);
    if (this.#state.at === "given") {
      await this.#options.program.recordReleased(epoch, bytesOf(leech));
      this.#enter({ at: "released", leech, epoch });
    }
    return this.#outcome();
  }

  async #cancel(leech: string): Promise<SeederReply> {
    const state = this.#state;
    if (state.at === "suspending" && state.leech === leech) await state.offer.catch(() => {});
    if (this.#state.at === "offered" && this.#state.offer.leech === leech) await this.#takeBack();
    this.#followers.delete(leech);
    return this.#outcome();
  }

  /** Reads one run of chunks after the other: who writes should not wait for long. */
  async #digestsOf(chunk: number, count: number): Promise<SeederReply> {
    const digests = this.#digesting.then(() => this.#digests.of(chunk, chunk + count));
    this.#digesting = digests.catch(() => {});
    return { type: "digests", chunk, digests: await digests };
  }

  #collect(): void {
    const { track } = this.#options;
    if (!this.#tracking) return;
    const written = track.collect();
    this.#writtenBytes += written.byteLength;
    this.#digests.forget(written);
    this.#followers.written(written);
  }

  #checkTracked(trackId: Uint8Array): void {
    if (trackId.every((byte, index) => byte === this.#trackId[index])) return;
    throw new TelemapError("ESTALE", "Cannot tell what was written before this seeder began");
  }

  #isGivenTo(leech: string, epoch: number): boolean {
    const state = this.#state;
    return (state.at === "given" || state.at === "released") && state.leech === leech &&
      state.epoch === epoch;
  }

  #enter(state: State): void {
    this.#state = state;
    this.#options.program.onState(this.state);
  }
}

/** Where piece `index` of some ranges lies: pieces lie in one range each, and are as long as may be. */
export function pieceOf(
  ranges: RangeList,
  index: number,
): { offset: number; length: number } | undefined {
  for (let range = 0, left = index; range < ranges.count; range++) {
    const start = ranges.start(range), end = ranges.end(range);
    const pieces = Math.ceil((end - start) / MESSAGE_LIMIT.PIECE);
    if (left < pieces) {
      const offset = start + left * MESSAGE_LIMIT.PIECE;
      return { offset, length: Math.min(MESSAGE_LIMIT.PIECE, end - offset) };
    }
    left -= pieces;
  }
}

function offerReply({ set, epoch, suspendMs, flushMs }: Offer): SeederReply {
  return { type: "offer", ...set, epoch, suspendMs, flushMs };
}

async function within(milliseconds: number, action: Promise<void>, what: string): Promise<void> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(new DeadlineError(`Cannot ${what} within ${milliseconds} ms`));
  }, milliseconds);
  try {
    await Promise.race([action, late]);
  } finally {
    clearTimeout(timer);
  }
}

function fenced(epoch: number): ReadOnlyError {
  return new ReadOnlyError(`Cannot write as the region was given away (epoch ${epoch})`, {
    hint: "go on where it was given to",
  });
}

function notOffered(epoch: number): TelemapError {
  return new TelemapError("EPERM", `Cannot go on with epoch ${epoch}, which is not offered`);
}

/** The bytes of an id as a text, to compare and to look up. */
export function nameOf(id: Uint8Array): string {
  return [...id].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function bytesOf(name: string): Uint8Array {
  return Uint8Array.from(name.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}
