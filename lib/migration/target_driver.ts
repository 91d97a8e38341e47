/**
 * Does what the table of a target says (`target_handover.ts`): asks the source, writes records, has
 * the copy follow the source or become the region, and puts what comes of it to the table.
 *
 * @module
 */
import {
  ClosedError,
  ConnectionError,
  DeadlineError,
  FencedError,
  ProtocolError,
  TelemapError,
} from "../backend/errors.ts";
import { pauseFor } from "../chunk/pause.ts";
import type { SeederReply } from "./messages.ts";
import type { CallOptions, SeederClient } from "./seeder_client.ts";
import {
  stepTarget,
  type TargetAction,
  type TargetEvent,
  type TargetRecord,
  type TargetRequest,
  type TargetState,
  type TargetStep,
} from "./target_handover.ts";

/** What was written last at the source. */
export type TargetOffer = Extract<SeederReply, { type: "offer" }>;

/** What the driver asks of those who have the copy. */
export interface TargetCopy {
  /** Writes down, durably, where the handover under that epoch is. */
  record(state: TargetRecord, epoch: number, promoted: boolean): Promise<void>;
  /** Asks for what will have been written last, before it is known what that is. */
  askAhead(epoch: number): void;
  /** Brings what was written last here. */
  receive(offer: TargetOffer): Promise<void>;
  /** Copies while the program runs at the source, the first time or again. */
  follow(): Promise<void>;
  /** Compares what is here with the source, which stands still, and forgets what differs. */
  distrust(): Promise<void>;
  /** Lets the program run here. */
  own(epoch: number): void;
  /** What is here is worth nothing. */
  stop(): void;
}

/** A handover that is begun. */
export interface TargetBegin {
  /** Above all that either side has used. */
  epoch: number;
  /** What the source is told of what this side has. */
  trackId: Uint8Array;
  /** See `trackId`. */
  generation: number;
  /** Milliseconds that suspending may take, and for which the offer stands. */
  offerMs: number;
  /** Whether the source is to commit before what was written last is here. */
  ahead: boolean;
}

/** A pause before the same is asked or written again, in ms. */
const RETRY_MS = 100;
/** SUSPEND may take so many times as long as suspending. */
const SUSPEND_TIMES = 3;
/** How long the source is waited for once nothing comes of a handover, in ms. */
const GIVE_UP_MS = 10_000;
/** A question is asked anew after so long. */
const ASK_MS = 30_000;

/** See the module. */
export class TargetDriver {
  readonly #client: SeederClient;
  readonly #copy: TargetCopy;
  #state: TargetState;
  readonly #first: readonly TargetAction[];
  #owns = false;
  #begun: TargetBegin | undefined;
  /** When SUSPEND is given up, as of `performance.now()`. */
  #late = Infinity;
  /** Why nothing came of the latest handover, or of its record. */
  #failure: Error | undefined;
  #recordFailure: Error | undefined;
  #following: Promise<void> = Promise.resolve();
  #changed = Promise.withResolvers<void>();
  #warned = false;
  readonly #stopped = new AbortController();

  /** Does nothing yet; a step that was taken without it says where it begins. */
  constructor(client: SeederClient, copy: TargetCopy, { state, actions }: TargetStep) {
    this.#client = client;
    this.#copy = copy;
    this.#state = state;
    this.#first = actions;
  }

  /** Does what that step says. Once. */
  start(): void {
    void this.#perform(this.#first);
  }

  /** Where the target is. */
  get state(): TargetState {
    return this.#state;
  }

  /** Whether the program may run here. */
  get owns(): boolean {
    return this.#owns;
  }

  /**
   * Hands over; answers when the region is here. Where that fails, the program goes on at the source;
   * or it is not known yet who has the region, and {@linkcode settled} tells when it is.
   */
  async begin(begun: TargetBegin): Promise<void> {
    this.#stopped.signal.throwIfAborted();
    this.#begun = begun;
    this.#failure = undefined;
    this.#late = performance.now() + begun.offerMs * SUSPEND_TIMES;
    this.#put({ type: "begin", epoch: begun.epoch, ahead: begun.ahead });
    await this.#until(() => this.#isSettled || this.#failure !== undefined);
    await settlesWithin(this.settled(), GIVE_UP_MS);
    if (!this.#owns) throw this.#refusal();
  }

  /** Answers when it is known who has the region, and if it is the source, this side follows it. */
  async settled(): Promise<void> {
    await this.#until(() => this.#isSettled);
    await this.#following;
  }

  /** Lets the source go on, for good; answers when it does, or after so many ms. */
  async cancel(milliseconds: number): Promise<void> {
    if (this.#stopped.signal.aborted) return;
    this.#put({ type: "cancel" });
    await settlesWithin(this.settled(), milliseconds);
  }

  /** Everything is here; answers when that is written down. Throws where it cannot be, for now. */
  async whole(): Promise<void> {
    await this.#untilOwner({ type: "whole" });
  }

  /** The source is gone: answers when the copy is the region, which is written down. */
  async promote(): Promise<void> {
    await this.#untilOwner({ type: "promote" });
  }

  /** After {@linkcode whole}: whether the source has heard of it within so many ms. */
  async done(milliseconds: number): Promise<boolean> {
    const isDone = () => this.#state.at === "owner" && this.#state.done;
    await settlesWithin(this.#until(isDone), milliseconds);
    return isDone();
  }

  /** Asks nothing any more. */
  stop(): void {
    this.#stopped.abort(new ClosedError("Cannot take a region over that is closed"));
    this.#change();
  }

  get #isSettled(): boolean {
    const { at } = this.#state;
    return this.#owns || at === "following" || at === "cancelled" || at === "lost";
  }

  #put(event: TargetEvent): void {
    if (this.#stopped.signal.aborted) return;
    const before = this.#state;
    const { state, actions } = stepTarget(before, event);
    if (state.at !== before.at) this.#warned = false;
    this.#state = state;
    void (state === before ? this.#performLater(actions) : this.#perform(actions));
    this.#change();
  }

  /** Tries again what has just come to nothing. */
  async #performLater(actions: readonly TargetAction[]): Promise<void> {
    if (actions.length === 0) return;
    const { at, epoch } = this.#state;
    await pauseFor(RETRY_MS, this.#stopped.signal);
    const isSame = this.#state.at === at && this.#state.epoch === epoch;
    if (isSame && !this.#stopped.signal.aborted) await this.#perform(actions);
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  async #perform(actions: readonly TargetAction[]): Promise<void> {
    for (const action of actions) {
      if (action !== "distrust") this.#act(action);
      // Otherwise it would be written down that what is here can be trusted.
      else if (!await this.#distrust()) return;
    }
  }

  #act(action: Exclude<TargetAction, "distrust">): void {
    if (typeof action === "object") {
      if ("record" in action) void this.#record(action.record, action.epoch);
      else void this.#ask(action.ask);
      return;
    }
    switch (action) {
      case "follow":
        this.#following = this.#copy.follow().catch((error) => {
          this.#failure ??= error;
        });
        return;
      case "own":
        if (this.#owns) return;
        this.#owns = true;
        this.#copy.own(this.#state.epoch);
        return this.#change();
      case "stop":
        return this.#copy.stop();
    }
  }

  /** Answers whether that was done before all ended. */
  async #distrust(): Promise<boolean> {
    for (;;) {
      if (this.#stopped.signal.aborted) return false;
      try {
        await this.#copy.distrust();
        return true;
      } catch (error) {
        // What is recorded has whoever opens it again compare.
        if (error instanceof ClosedError) return false;
        this.#warn("compare what is here with the source", error as Error);
        await pauseFor(RETRY_MS, this.#stopped.signal);
      }
    }
  }

  async #record(record: TargetRecord, epoch: number): Promise<void> {
    const promoted = this.#state.at === "promoting";
    try {
      await this.#copy.record(record, epoch, promoted);
      this.#recordFailure = undefined;
    } catch (error) {
      this.#recordFailure = error as Error;
      if (record === "confirming") this.#failure = error as Error;
      else this.#warn(`write down "${record}"`, error as Error);
      this.#change();
      return this.#put({ type: "recordFailed", record, epoch });
    }
    this.#put({ type: "recorded", record, epoch });
  }

  async #ask(request: TargetRequest): Promise<void> {
    const { epoch } = this.#state;
    switch (request) {
      case "suspend":
        return await this.#suspend(epoch);
      case "last":
        return this.#copy.askAhead(epoch);
      default:
        return await this.#askOutcome(request, epoch);
    }
  }

  async #suspend(epoch: number): Promise<void> {
    const { trackId, generation, offerMs } = this.#begun!;
    const asked = { trackId, generation, epoch, timeout: offerMs };
    const timeout = Math.max(this.#late - performance.now(), 1);
    let offer: TargetOffer;
    try {
      offer = await this.#client.suspend(asked, this.#options(timeout));
    } catch (error) {
      return this.#notOffered(error as Error, epoch);
    }
    this.#put({ type: "offered", epoch });
    if (this.#state.at !== "receiving" || this.#state.epoch !== epoch) return;
    try {
      await this.#copy.receive(offer);
    } catch (error) {
      return this.#abandon(error as Error);
    }
    this.#put({ type: "received", epoch });
  }

  #notOffered(error: Error, epoch: number): void {
    if (isUnanswered(error)) {
      if (performance.now() >= this.#late) return this.#abandon(error);
      if (this.#isAsking(epoch)) this.#put({ type: "unanswered" });
      return;
    }
    if (!this.#isAsking(epoch)) return;
    this.#failure = error;
    this.#put({ type: "refused", epoch, request: "suspend" });
  }

  #isAsking(epoch: number): boolean {
    return this.#state.at === "asking" && this.#state.epoch === epoch;
  }

  #abandon(error: Error): void {
    this.#failure = error;
    this.#put({ type: "abandon" });
  }

  /** Asks what is answered by how the handover stands. */
  async #askOutcome(
    request: Exclude<TargetRequest, "suspend" | "last">,
    epoch: number,
  ): Promise<void> {
    const client = this.#client, before = this.#state;
    try {
      const options = this.#options(ASK_MS);
      const outcome = request === "cancel"
        ? await client.cancel({ epoch }, options)
        : await client[request]({ epoch }, options);
      const mine = outcome.leech.toHex() === client.leech.toHex();
      this.#put({ type: "outcome", epoch, outcome, mine });
    } catch (error) {
      if (this.#stopped.signal.aborted || this.#state !== before) return;
      // What becomes of the SUSPEND that it went with says how to go on.
      if (before.at === "asking") return;
      this.#warn(`ask the source (${request})`, error as Error);
      if (!isUnanswered(error as Error)) return this.#put({ type: "refused", epoch, request });
      this.#put({ type: "unanswered" });
    }
  }

  async #untilOwner(event: TargetEvent): Promise<void> {
    this.#recordFailure = undefined;
    this.#put(event);
    await this.#until(() => this.#state.at === "owner" || this.#recordFailure !== undefined);
    if (this.#state.at !== "owner") throw this.#recordFailure;
  }

  /** Answers when a condition holds, which is looked at whenever something changed. */
  async #until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      this.#stopped.signal.throwIfAborted();
      await this.#changed.promise;
    }
  }

  #options(timeout: number): CallOptions {
    return { timeout, signal: this.#stopped.signal };
  }

  #refusal(): Error {
    if (this.#state.at === "lost") return givenElsewhere();
    if (this.#failure !== undefined) return this.#failure;
    if (this.#state.at !== "following") {
      return new TelemapError("EAGAIN", "Cannot take the region over: given up");
    }
    return new DeadlineError(
      "Cannot take the region over: the source went on before this side had confirmed",
      { hint: "try again, with more time to suspend" },
    );
  }

  /** Once, until something changes. */
  #warn(what: string, error: Error): void {
    if (this.#warned) return;
    this.#warned = true;
    console.warn(`Cannot ${what}, trying on: ${error.message}`);
  }
}

/** What is told of a region that somebody else has now. */
export function givenElsewhere(): FencedError {
  return new FencedError("Cannot take the region over: its source gave it to somebody else", {
    hint: "follow whoever has it now",
  });
}

/** Whether nobody has answered, so that it is not known what became of a question. */
function isUnanswered(error: Error): boolean {
  return error instanceof ConnectionError || error instanceof DeadlineError ||
    error instanceof ClosedError || error instanceof ProtocolError;
}

async function settlesWithin(promise: Promise<void>, milliseconds: number): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, milliseconds);
  try {
    await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
