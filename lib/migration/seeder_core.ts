/**
 * The source of a migration, in the isolate that serves the region: notices writes, tells followers
 * of them, and gives the region away once, as `source_handover.ts` says.
 *
 * @module
 */
import type { Awaitable } from "../backend/backend.ts";
import { ClosedError, ReadOnlyError, TelemapError } from "../backend/errors.ts";
import { RangeList } from "../backend/range_list.ts";
import type { LockedBackend } from "../chunk/lock.ts";
import type { SlowStage } from "../chunk/slow.ts";
import type { TrackedBackend } from "../chunk/track.ts";
import { type DirtySet, Followers } from "./followers.ts";
import { LastPieces } from "./last_pieces.ts";
import { decodeRequest, encodeReply } from "./message_codec.ts";
import type { SeederReply, SeederRequest } from "./messages.ts";
import {
  type Offer,
  outcomeOf,
  type SourceAction,
  type SourceEvent,
  type SourceState,
  stepSource,
} from "./source_handover.ts";
import { SlowedProgram } from "./slowed_program.ts";
import { ToldDigests } from "./told_digests.ts";

/** Where a source is: `given` is for ever, and writes fail from then on. */
export type SeederStage = "serving" | "suspending" | "offered" | "given" | "released";

/** What the core asks of those who have the program and the device. */
export interface SeededProgram {
  /** Brings what the program wrote to the region, as far as that goes while it runs. */
  flush(): Awaitable<void>;
  /** Has the program stop writing; answers when it has. */
  suspend(): Awaitable<void>;
  /** Lets the program go on. */
  resume(): Awaitable<void>;
  /** Asks the program to write no more than so many bytes a second; `Infinity` for as it likes. */
  throttle(rate: number): Awaitable<void>;
  /** Writes down durably that the region was given, or that nobody needs it here any more. */
  record(state: "given" | "released", offer: Offer): Awaitable<void>;
  /** Told of every change. */
  onStage(stage: SeederStage): void;
}

/** How a {@linkcode SeederCore} works. */
export interface SeederCoreOptions {
  /** The region: what is written through `lock` is noticed by `track`, which it stands on. */
  lock: LockedBackend;
  /** See `lock`. */
  track: TrackedBackend;
  /** What slows writes; `lock` stands on it or it on `lock`. */
  slow: SlowStage;
  /** Bytes of a chunk. */
  chunkSize: number;
  /** The program. */
  program: SeededProgram;
  /** Where it begins: by the record that was found, or serving. */
  state: SourceState;
}

/** What was written last of a region that is offered. */
interface LastSet {
  readonly set: DirtySet;
  readonly prepareMs: number;
  readonly suspendMs: number;
  readonly flushMs: number;
}

type Suspend = Extract<SeederRequest, { type: "suspend" }>;

/** One that came at that moment of `performance.now()`. */
type AskedSuspend = Suspend & { readonly at: number };

/** A follower that says nothing for so long gives its place to another one. */
const SILENT_MS = 10 * 60_000;
/** A record that could not be written is tried again after so long. */
const RETRY_MS = 100;
/** A request that has to wait is refused after so long; it may be made again. */
const WAIT_MS = 30_000;
/** However long a leecher would take, the program stands still for it no longer than that. */
const OFFER_MOST_MS = 3_600_000;
/**
 * Flushes before the program is suspended: one that was short leaves little, one that was long lets much
 * be written, and each has to be shorter by so much than the one before.
 */
const FLUSHES = { MOST: 5, SHORT_MS: 3, LONG_MS: 50, SHRINK: 0.8 } as const;
const NOBODY = new Uint8Array(16);

/** See the module. */
export class SeederCore {
  readonly #options: SeederCoreOptions;
  readonly #followers: Followers;
  readonly #digests: ToldDigests;
  readonly #pieces: LastPieces;
  readonly #trackId = crypto.getRandomValues(new Uint8Array(16));
  #tracking = false;
  #writtenBytes = 0;
  #state: SourceState;
  #stage: SeederStage;
  /** What the suspension that goes on, or the offer that is open, was asked for by. */
  #asked: AskedSuspend | undefined;
  #lastSet: LastSet | undefined;
  /** Why an epoch could not be offered. */
  #failure: { epoch: number; error: Error } | undefined;
  #deadline: ReturnType<typeof setTimeout> | undefined;
  /** Whether the program was told to stop, and not yet to go on. */
  #isStopped = false;
  /** What requests wait for that cannot be answered yet. */
  #wake = Promise.withResolvers<void>();
  readonly #slowed: SlowedProgram;
  /** One at a time: what one that is late does at its end must not come upon the next. */
  #suspension: Promise<void> = Promise.resolve();

  /** Serves the region, or what is left of it where it was given before. */
  constructor(options: SeederCoreOptions) {
    const { track, lock, chunkSize, state } = options;
    this.#options = options;
    this.#followers = new Followers({ size: track.size, chunkSize });
    this.#digests = new ToldDigests(track, chunkSize);
    this.#pieces = new LastPieces(track);
    this.#slowed = new SlowedProgram(options.slow, options.program);
    this.#state = state;
    this.#stage = stageOf(state);
    if (this.#stage === "given" || this.#stage === "released") lock.refuse(fenced(state.epoch));
  }

  /** Where the handover is. */
  get stage(): SeederStage {
    return this.#stage;
  }

  /** Answers a message of a leecher. Throws what it is refused with. */
  readonly control = async (
    message: Uint8Array<ArrayBuffer>,
    gone?: AbortSignal,
  ): Promise<Uint8Array> => {
    const request = decodeRequest(message);
    if (request.type === "last") return await this.#last(request);
    return encodeReply(await this.#answer(request, gone));
  };

  /** Takes back what is offered, as the program is to go on here. Throws where it is given. */
  async takeBack(): Promise<void> {
    await this.#request({ type: "takeBack" });
    while (this.#state.at === "resuming") await this.#wake.promise;
  }

  /** Ends what goes by time. */
  close(): void {
    clearTimeout(this.#deadline);
    this.#slowed.close();
  }

  async #answer(
    request: Exclude<SeederRequest, { type: "last" }>,
    gone: AbortSignal | undefined,
  ): Promise<SeederReply> {
    const leech = request.leech.toHex();
    switch (request.type) {
      case "track":
        return this.#track(leech);
      case "dirty":
        return await this.#dirty(request, leech);
      case "digests": {
        const { chunk, count } = request;
        return { type: "digests", chunk, digests: await this.#digests.of(chunk, count) };
      }
      case "root":
        return { type: "root", root: await this.#root(request.epoch, leech) };
      case "suspend":
        this.#checkTracked(request.trackId);
        await this.#request(
          { type: "suspend", offer: { leech, epoch: request.epoch } },
          { asked: request },
        );
        return this.#offer();
      case "throttle":
        await this.#throttle(leech, request);
        return this.#outcome();
      case "cancel":
        await this.#request({ type: "cancel", offer: { leech, epoch: request.epoch } });
        await this.#slowed.endFor(leech);
        this.#followers.delete(leech);
        return this.#outcome();
      default:
        await this.#request({ type: request.type, offer: { leech, epoch: request.epoch } }, {
          gone,
        });
        return this.#outcome();
    }
  }

  /** Answers when a request is to be answered; throws where it is refused. */
  async #request(
    event: SourceEvent,
    { asked, gone }: { asked?: Suspend; gone?: AbortSignal | undefined } = {},
  ): Promise<void> {
    const late = performance.now() + WAIT_MS;
    for (;;) {
      // Nothing is given to one who will not hear of it.
      if (gone?.aborted) throw new ClosedError("Cannot answer one who is gone");
      const { state, actions } = stepSource(this.#state, event);
      if (actions.includes("suspend")) this.#asked = { ...asked!, at: performance.now() };
      this.#enter(state);
      for (const action of actions) this.#act(action);
      const refusal = actions.find((action) => typeof action === "object" && "refuse" in action);
      if (refusal !== undefined) throw this.#refusalOf(event, refusal);
      if (!actions.includes("wait")) return;
      if (!await settles(this.#wake.promise, late - performance.now())) {
        throw new TelemapError("EBUSY", "Cannot answer yet: something else is under way");
      }
    }
  }

  /** Something that was begun came to its end. */
  #happen(event: SourceEvent): void {
    const { state, actions } = stepSource(this.#state, event);
    this.#enter(state);
    for (const action of actions) this.#act(action);
  }

  #act(action: SourceAction): void {
    if (typeof action === "object") {
      if ("record" in action) void this.#record(action.record);
      return;
    }
    switch (action) {
      case "suspend":
        return this.#beginToSuspend(this.#asked!);
      case "resume":
        return void this.#resume();
      case "fence":
        this.#options.lock.refuse(fenced(this.#state.epoch));
        return void this.#flushGiven();
      case "wake":
        this.#wake.resolve();
        this.#wake = Promise.withResolvers();
    }
  }

  #track(leech: string): SeederReply {
    const { track, chunkSize } = this.#options;
    if (!this.#tracking) this.#startTracking();
    this.#followers.add(leech, performance.now(), SILENT_MS);
    const { size } = track;
    const trackId = this.#trackId, { epoch } = this.#state;
    return { type: "tracked", trackId, epoch, size, chunkSize, generation: 0 };
  }

  #startTracking(): void {
    const { track } = this.#options;
    track.start();
    this.#tracking = true;
    // Those that somebody asked for before: nobody noticed what was written since.
    const all = new RangeList();
    all.add(0, track.size);
    this.#digests.forget(all);
  }

  async #dirty(
    { trackId, generation }: Extract<SeederRequest, { type: "dirty" }>,
    leech: string,
  ): Promise<SeederReply> {
    this.#checkTracked(trackId);
    this.#checkNotGiven(leech);
    if (this.#state.at === "serving") await this.#slowed.flush();
    this.#collect();
    const set = this.#followers.tell(leech, generation, performance.now());
    return { type: "dirty", ...set, written: this.#writtenBytes };
  }

  async #throttle(
    leech: string,
    { rate, milliseconds }: { rate: number; milliseconds: number },
  ): Promise<void> {
    if (!this.#followers.has(leech)) {
      throw new TelemapError("ESTALE", "Cannot slow a program for one who does not follow it");
    }
    const isSlower = rate > 0 && this.#state.at === "serving";
    if (isSlower) await this.#slowed.slow(leech, rate, milliseconds);
    else await this.#slowed.endFor(leech);
  }

  #beginToSuspend(asked: AskedSuspend): void {
    const timeout = Math.min(asked.timeout, OFFER_MOST_MS);
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#late(asked.epoch), timeout);
    this.#suspension = this.#suspension.then(() => this.#suspend(asked, timeout));
  }

  /** Suspends the program, and finds out what it has written last. */
  async #suspend(
    { leech, generation, epoch, at }: AskedSuspend,
    timeout: number,
  ): Promise<void> {
    const { program, lock } = this.#options;
    const isWanted = () => this.#state.at === "suspending" && this.#state.epoch === epoch;
    if (!isWanted()) return;
    void this.#slowed.end();
    let isSuspended = false;
    try {
      await this.#flushAhead(isWanted);
      if (!isWanted()) return;
      const start = performance.now();
      this.#isStopped = true;
      await program.suspend();
      // Also where it was told to go on before it had stopped.
      isSuspended = this.#isStopped = true;
      const suspended = performance.now();
      await program.flush();
      if (isWanted()) await lock.lock("writes", timeout);
      const flushMs = performance.now() - suspended;
      this.#collect();
      const set = this.#followers.tell(leech.toHex(), generation, performance.now());
      const prepareMs = start - at, suspendMs = suspended - start;
      this.#lastSet = { set, prepareMs, suspendMs, flushMs };
    } catch (error) {
      // One that did not stop was told to go on when it was late.
      if (!isWanted()) return isSuspended ? await this.#letGo() : undefined;
      this.#failure = { epoch, error: error as Error };
      return this.#happen({ type: "suspendFailed" });
    }
    if (isWanted()) this.#happen({ type: "suspended" });
    // It took so long that the program was told to go on before it had stopped.
    else await this.#letGo();
  }

  /**
   * While the program runs, so that little is left to be flushed while it does not: each time what was
   * written during the flush before.
   */
  async #flushAhead(isWanted: () => boolean): Promise<void> {
    for (let flush = 0, last = Infinity; flush < FLUSHES.MOST && isWanted(); flush++) {
      const start = performance.now();
      await this.#options.program.flush();
      const took = performance.now() - start;
      if (took < FLUSHES.SHORT_MS || took > Math.min(last, FLUSHES.LONG_MS)) return;
      last = took * FLUSHES.SHRINK;
    }
  }

  #late(epoch: number): void {
    const what = this.#state.at === "suspending" ? "suspend the program" : "keep the offer open";
    const error = new TelemapError("ETIMEDOUT", `Cannot ${what} for so long`);
    if (this.#state.at === "suspending") this.#failure = { epoch, error };
    this.#happen({ type: "deadline", epoch });
  }

  async #resume(): Promise<void> {
    clearTimeout(this.#deadline);
    await this.#letGo();
    this.#happen({ type: "resumed" });
  }

  /** Has the program go on, once each time that it was told to stop. */
  async #letGo(): Promise<void> {
    this.#options.lock.release("writes");
    if (!this.#isStopped) return;
    this.#isStopped = false;
    try {
      await this.#options.program.resume();
    } catch (error) {
      console.warn(`Cannot resume the program: ${(error as Error).message}`);
    }
  }

  async #record(record: "given" | "released"): Promise<void> {
    clearTimeout(this.#deadline);
    if (!("offer" in this.#state)) return;
    try {
      await this.#options.program.record(record, this.#state.offer);
    } catch (error) {
      console.warn(`Cannot write down "${record}", trying on: ${(error as Error).message}`);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      return this.#happen({ type: "recordFailed" });
    }
    this.#happen({ type: "recorded" });
  }

  /** What is fetched later has to outlive this host; nobody waits for that. */
  async #flushGiven(): Promise<void> {
    try {
      await this.#options.track.flush();
    } catch (error) {
      console.warn(`Cannot flush a region that was given away: ${(error as Error).message}`);
    }
  }

  #offer(): SeederReply {
    const { set, ...times } = this.#lastSet!;
    return { type: "offer", ...set, epoch: this.#state.epoch, ...times };
  }

  /** A piece of the content that was written last. */
  async #last(request: Extract<SeederRequest, { type: "last" }>): Promise<Uint8Array> {
    const { leech, epoch, index } = request;
    const room = this.#pieces.room();
    await this.#request({ type: "last", offer: { leech: leech.toHex(), epoch } });
    return await this.#pieces.read(index, this.#lastSet?.set.ranges ?? new RangeList(), room);
  }

  #outcome(): SeederReply {
    const { state, epoch, leech } = outcomeOf(this.#state);
    return {
      type: "outcome",
      state,
      epoch,
      leech: leech === undefined ? NOBODY : Uint8Array.fromHex(leech),
    };
  }

  /** What was given does not change any more. */
  #root(asked: number, leech: string): Promise<Uint8Array> {
    const { state, leech: owner, epoch } = outcomeOf(this.#state);
    const isGiven = state === "given" || state === "released";
    if (isGiven && owner === leech && epoch === asked) return this.#digests.root();
    throw new TelemapError("EPERM", `Cannot tell what was given under epoch ${asked}: it was not`);
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

  /** Throws where somebody else has the region: what is written from then on is not known here. */
  #checkNotGiven(leech: string): void {
    const { state, leech: owner, epoch } = outcomeOf(this.#state);
    if (state !== "given" && state !== "released" || owner === leech) return;
    throw new TelemapError("EPERM", `Cannot follow a region that was given away (epoch ${epoch})`);
  }

  #refusalOf(event: SourceEvent, { refuse }: { refuse: "EBUSY" | "EPERM" }): Error {
    const epoch = "offer" in event ? event.offer.epoch : undefined;
    if (epoch !== undefined && this.#failure?.epoch === epoch) return this.#failure.error;
    if (refuse === "EBUSY") {
      return new TelemapError("EBUSY", "Cannot offer a region that is offered to somebody else");
    }
    return epoch === undefined
      ? new TelemapError("EPERM", "Cannot take back a region that was given away")
      : new TelemapError("EPERM", `Cannot go on with epoch ${epoch}, which is not offered`);
  }

  #enter(state: SourceState): void {
    this.#state = state;
    const stage = stageOf(state);
    if (stage === this.#stage) return;
    this.#stage = stage;
    this.#options.program.onStage(stage);
  }
}

function stageOf({ at }: SourceState): SeederStage {
  switch (at) {
    case "resuming":
      return "suspending";
    case "committing":
      return "offered";
    case "releasing":
      return "given";
    default:
      return at;
  }
}

/** Whether a promise settles within so many ms. */
async function settles(promise: Promise<void>, milliseconds: number): Promise<boolean> {
  const { promise: late, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(resolve, milliseconds, false);
  const settled = await Promise.race([promise.then(() => true), late]);
  clearTimeout(timer);
  return settled;
}

function fenced(epoch: number): ReadOnlyError {
  return new ReadOnlyError(`Cannot write as the region was given away (epoch ${epoch})`, {
    hint: "go on where it was given to",
  });
}
