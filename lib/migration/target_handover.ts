/**
 * The target's side of a handover: what it asks of the source, and what it makes of each answer and
 * of each end of its own work. Pure. The sequence stands in `source_handover.ts`.
 *
 * ```text
 *               begin             recorded           offered               received
 *   following --------> preparing --------> asking ----------> receiving ----------> confirming
 *      ^                                       | refused,          |    |              |  |
 *      |                                       | abandon   abandon |    | received,    |  | outcome:
 *      |                                       v                   |    | given        |  |  given
 *      +------- outcome: serving ---------- cancelling <-----------+    +-----------+  |  |
 *      |                                                                            |  |  |
 *      +------- outcome: serving ------------------------------------------------------+  |
 *      |                                      outcome: given                        v     v
 *      +------- outcome: serving --- doubting ----------------------------------------> taken
 *                                       ^                                                 |
 *   a restart that finds "confirming" --+                                           whole |
 *                                                                                         v
 *                                              owner <-------- recorded ------------ completing
 * ```
 *
 * `cancel` and `abandon` lead through cancelling, which waits for what the source says: to cancelled
 * or following where it serves, to taken where it had committed already. Where the region was given
 * to somebody else, every state leads to lost.
 *
 * The program may run here in taken, completing and owner. In taken, what is absent still comes from
 * the source. Where the target confirms ahead, CONFIRM goes with SUSPEND, and it is in doubt from
 * asking on; otherwise from confirming on. It asks until the source tells; where that tells "given"
 * before the last set is here, it is remembered. Only an outcome decides, never a refusal or a silence.
 *
 * The record "confirming e" is durable before the SUSPEND of e, so that nothing need be written while
 * the program is suspended; whoever finds it after a restart asks what became of e. What was received
 * before is not trusted then: it counts as absent until its digest matches.
 *
 * Where the source is gone for good, `promote` makes the target the owner of what it has. That is
 * safe only if the source never comes back, and nothing here can tell.
 *
 * @module
 */
import { type HandoverRecord, NOBODY } from "../backend/handover_record.ts";
import type { Outcome } from "./source_handover.ts";

/** Where the target is. `epoch` is the one that it is about, or the highest that it asked for. */
export type TargetState =
  /** The region is copied while the program runs at the source. */
  | { readonly at: "following"; readonly epoch: number }
  /** The record "confirming" is being written. */
  | { readonly at: "preparing"; readonly epoch: number; readonly ahead: boolean }
  /** SUSPEND was sent, `ahead`: and CONFIRM, `given`: which the source has answered. */
  | {
    readonly at: "asking";
    readonly epoch: number;
    readonly ahead: boolean;
    readonly given: boolean;
  }
  /** It is offered; the last set is under way. */
  | { readonly at: "receiving"; readonly epoch: number; readonly given: boolean }
  /** In doubt, with the last set at hand. */
  | { readonly at: "confirming"; readonly epoch: number }
  /** In doubt since before a restart. */
  | { readonly at: "doubting"; readonly epoch: number }
  /** CANCEL was sent; `held`: with the last set at hand. */
  | {
    readonly at: "cancelling";
    readonly epoch: number;
    readonly held: boolean;
    readonly then: "following" | "cancelled";
  }
  /** The end: the source goes on. */
  | { readonly at: "cancelled"; readonly epoch: number }
  /** The end: the source gave the region to somebody else. */
  | { readonly at: "lost"; readonly epoch: number }
  /** The region belongs to this side; `recorded`: and that is durable, as a flush has to wait for. */
  | { readonly at: "taken"; readonly epoch: number; readonly recorded: boolean }
  /** Everything is here; the record "owner" is being written. */
  | { readonly at: "completing"; readonly epoch: number }
  /** The source is gone; the record "owner" is being written. `running`: the program runs already. */
  | { readonly at: "promoting"; readonly epoch: number; readonly running: boolean }
  /** The end; `done`: and the source may let go, or nobody asks it. */
  | { readonly at: "owner"; readonly epoch: number; readonly done: boolean };

/** What happens to the target. Answers are of requests about `epoch`; others are not heard. */
export type TargetEvent =
  /**
   * The copy is close enough: hand over, under an epoch above all that either side has used; `ahead`:
   * confirm before the last set is here.
   */
  | { readonly type: "begin"; readonly epoch: number; readonly ahead: boolean }
  | {
    readonly type: "recorded" | "recordFailed";
    readonly record: TargetRecord;
    readonly epoch: number;
  }
  /** SUSPEND was answered. */
  | { readonly type: "offered"; readonly epoch: number }
  /** A request was refused by the source. */
  | { readonly type: "refused"; readonly epoch: number; readonly request: TargetRequest }
  /** All of the last set is here, or known: what is not fetched yet counts as absent. */
  | { readonly type: "received"; readonly epoch: number }
  /** CONFIRM, OUTCOME, CANCEL or DONE was answered; `mine`: the outcome's leecher is this one. */
  | {
    readonly type: "outcome";
    readonly epoch: number;
    readonly outcome: Pick<Outcome, "state" | "epoch">;
    readonly mine: boolean;
  }
  /** What was asked last got no answer: the connection was lost, or a deadline passed. */
  | { readonly type: "unanswered" }
  /** Let the source go on, and follow it again. */
  | { readonly type: "abandon" }
  /** Let the source go on, and end. */
  | { readonly type: "cancel" }
  /** Everything is here, verified and durable. */
  | { readonly type: "whole" }
  /** The source will never come back, says the user. */
  | { readonly type: "promote" };

/** Records that the target writes. */
export type TargetRecord = "confirming" | "taken" | "owner";

/** What the target asks of the source. */
export type TargetRequest = "suspend" | "last" | "confirm" | "outcome" | "cancel" | "done";

/** What the target is to do, in this order. */
export type TargetAction =
  /** Write the record durably, after a pause where that has just failed; ends in `recorded` or not. */
  | { readonly record: TargetRecord; readonly epoch: number }
  /** Ask the source, after a pause where it has just told nothing new; ends in an answer or not. */
  | { readonly ask: TargetRequest }
  /** Go on copying: the source goes on. */
  | "follow"
  /** What is here counts as absent until it is compared with the source, which is frozen. */
  | "distrust"
  /** Let the program run here. */
  | "own"
  /** The end: what is here is worth nothing. */
  | "stop";

/** What follows on an event. */
export interface TargetStep {
  /** The new state; the same object where nothing changed. */
  readonly state: TargetState;
  /** What to do. */
  readonly actions: readonly TargetAction[];
}

/** What becomes of a state by an event. */
export function stepTarget(state: TargetState, event: TargetEvent): TargetStep {
  switch (event.type) {
    case "begin":
      if (state.at !== "following" || event.epoch <= state.epoch) return step(state);
      return record({ at: "preparing", epoch: event.epoch, ahead: event.ahead }, "confirming");
    case "recorded":
      return event.epoch === state.epoch ? onRecorded(state, event.record) : step(state);
    case "recordFailed":
      return event.epoch === state.epoch ? onRecordFailed(state, event.record) : step(state);
    case "offered":
      if (state.at !== "asking" || event.epoch !== state.epoch) return step(state);
      return step({ at: "receiving", epoch: state.epoch, given: state.given });
    case "refused":
      return event.epoch === state.epoch ? onRefused(state, event.request) : step(state);
    case "received":
      if (state.at !== "receiving" || event.epoch !== state.epoch) return step(state);
      if (state.given) return take(state.epoch, { trusted: true });
      return askAgain({ at: "confirming", epoch: state.epoch });
    case "outcome":
      return event.epoch === state.epoch ? onOutcome(state, event) : step(state);
    case "unanswered":
      return askAgain(state);
    case "abandon":
      return giveUp(state, "following");
    case "cancel":
      return giveUp(state, "cancelled");
    case "whole":
      if (state.at !== "taken") return step(state);
      return record({ at: "completing", epoch: state.epoch }, "owner");
    case "promote":
      return promote(state);
  }
}

/**
 * Where a target begins, by the record that is found, and what it is to do. Undefined where it cannot
 * be one.
 */
export function targetAfterRestart(record: HandoverRecord): TargetStep | undefined {
  const { state, epoch, leech, promoted } = record;
  switch (state) {
    case "receiving":
      return step({ at: "following", epoch }, "follow");
    case "confirming":
      return step({ at: "doubting", epoch }, { ask: "outcome" });
    case "taken":
      return step({ at: "taken", epoch, recorded: true }, "own");
    case "owner": {
      const { state, actions } = askAgain({
        at: "owner",
        epoch,
        done: promoted || leech === NOBODY,
      });
      return step(state, "own", ...actions);
    }
    default:
      return undefined;
  }
}

/** Whether the program may write. */
export function targetMayWrite(state: TargetState): boolean {
  const { at } = state;
  return at === "taken" || at === "completing" || at === "owner" ||
    at === "promoting" && state.running;
}

function onRecorded(state: TargetState, which: TargetRecord): TargetStep {
  if (state.at === "preparing" && which === "confirming") {
    return askAgain({ ...state, at: "asking", given: false });
  }
  if (state.at === "taken" && which === "taken") return step({ ...state, recorded: true });
  if (state.at === "completing" && which === "owner") {
    return askAgain({ ...state, at: "owner", done: false });
  }
  if (state.at === "promoting" && which === "owner") {
    return step({ at: "owner", epoch: state.epoch, done: true }, "own");
  }
  return step(state);
}

function onRecordFailed(state: TargetState, which: TargetRecord): TargetStep {
  const { at, epoch } = state;
  if (which === "confirming") {
    return at === "preparing" ? step({ at: "following", epoch }, "follow") : step(state);
  }
  const wanted = which === "taken" ? at === "taken" : at === "completing" || at === "promoting";
  return wanted ? record(state, which) : step(state);
}

function onRefused(state: TargetState, request: TargetRequest): TargetStep {
  switch (request) {
    case "suspend":
      // It may come to something all the same, and a CONFIRM with it.
      return state.at === "asking" ? giveUp(state, "following") : step(state);
    case "last":
      return state.at === "receiving" ? giveUp(state, "following") : step(state);
    case "confirm":
      return state.at === "confirming" ? step(state, { ask: "outcome" }) : step(state);
    case "done":
      return state.at === "owner" ? askAgain(state) : step(state);
    case "outcome":
      return state.at === "doubting" || state.at === "confirming" ? askAgain(state) : step(state);
    case "cancel":
      return state.at === "cancelling" ? askAgain(state) : step(state);
  }
}

type OutcomeEvent = Extract<TargetEvent, { type: "outcome" }>;

function onOutcome(state: TargetState, { outcome, mine }: OutcomeEvent): TargetStep {
  const given = outcome.state === "given" || outcome.state === "released";
  if (state.at === "owner") {
    return step(mine && outcome.state === "released" ? { ...state, done: true } : state);
  }
  if (!mayStillTake(state)) return step(state);
  if (given && mine) return onGiven(state, outcome.epoch);
  if (given) return step({ at: "lost", epoch: state.epoch }, "stop");
  const offered = mine && outcome.state === "offered" && outcome.epoch === state.epoch;
  return offered ? onUndecided(state) : onServing(state);
}

/** The source is about to give the region, or waits for the word. */
function onUndecided(state: TargetState): TargetStep {
  // What was received before a restart is not at hand: better to let the source go on.
  if (state.at === "doubting") return giveUp(state, "following");
  return askAgain(state);
}

/** The source goes on, and has promised never to give this epoch. */
function onServing(state: TargetState): TargetStep {
  const { at, epoch } = state;
  if (at === "cancelling" && state.then === "cancelled") {
    return step({ at: "cancelled", epoch }, "stop");
  }
  if (at === "confirming" || at === "doubting" || at === "cancelling") {
    return step({ at: "following", epoch }, "follow");
  }
  return step(state);
}

function onGiven(state: TargetState, epoch: number): TargetStep {
  const isOfThis = epoch === state.epoch;
  if (isOfThis && (state.at === "asking" || state.at === "receiving")) {
    return step({ ...state, given: true });
  }
  const held = state.at === "confirming" || state.at === "cancelling" && state.held;
  return take(epoch, { trusted: held && isOfThis });
}

function take(epoch: number, { trusted }: { trusted: boolean }): TargetStep {
  const taken: TargetState = { at: "taken", epoch, recorded: false };
  const { actions } = record(taken, "taken");
  return step(taken, ...(trusted ? [] : DISTRUST), "own", ...actions);
}

function giveUp(state: TargetState, then: "following" | "cancelled"): TargetStep {
  const { at, epoch } = state;
  switch (at) {
    case "following":
    case "preparing":
      if (then === "cancelled") return step({ at: then, epoch }, { ask: "cancel" }, "stop");
      return at === "following" ? step(state) : step({ at: then, epoch }, "follow");
    case "asking":
    case "receiving":
      if (state.given) return take(epoch, { trusted: false });
      return step({ at: "cancelling", epoch, held: false, then }, { ask: "cancel" });
    case "confirming":
    case "doubting":
      return step({ at: "cancelling", epoch, held: at === "confirming", then }, { ask: "cancel" });
    case "cancelling":
      return step(then === "cancelled" ? { ...state, then } : state);
    default:
      return step(state);
  }
}

function promote(state: TargetState): TargetStep {
  if (state.at === "owner") return step({ ...state, done: true });
  if (!mayStillTake(state) && state.at !== "taken") return step(state);
  const running = state.at === "taken";
  return record({ at: "promoting", epoch: state.epoch + 1, running }, "owner");
}

/** Asks again for what this state waits for. */
function askAgain(state: TargetState): TargetStep {
  switch (state.at) {
    case "asking":
      return step(state, { ask: "suspend" }, ...(state.ahead ? CONFIRM : []), { ask: "last" });
    case "receiving":
      return step(state, { ask: "last" });
    case "confirming":
      return step(state, { ask: "confirm" });
    case "doubting":
      return step(state, { ask: "outcome" });
    case "cancelling":
      return step(state, { ask: "cancel" });
    case "owner":
      return step(state, ...(state.done ? [] : [{ ask: "done" } as const]));
    default:
      return step(state);
  }
}

/** Whether the region may still come to this side. */
function mayStillTake({ at }: TargetState): boolean {
  return at === "following" || at === "preparing" || at === "asking" || at === "receiving" ||
    at === "confirming" || at === "doubting" || at === "cancelling";
}

const DISTRUST = ["distrust"] as const;
const CONFIRM = [{ ask: "confirm" }] as const;

function record(state: TargetState, which: TargetRecord): TargetStep {
  return step(state, { record: which, epoch: state.epoch });
}

function step(state: TargetState, ...actions: TargetAction[]): TargetStep {
  return { state, actions };
}
