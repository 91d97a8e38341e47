/**
 * The source's side of a handover: what it does with each request of a leecher, and with each end of
 * its own work. Pure.
 *
 * ```text
 *  target                                         source
 *    |  SUSPEND epoch e ----------------------------->|  suspends the program, flushes, locks
 *    |  LAST e 0, 1, … ------------------------------>|  writes and collects the last set
 *    |<----------------------------------- offer of e |
 *    |<------------------------------- pieces 0, 1, … |
 *    |  CONFIRM e ----------------------------------->|  records "given e" durably: the commit
 *    |<------------------------------------- given e  |  refuses writes for ever
 *    |  READ, DIGESTS ------------------------------->|
 *    |  DONE e -------------------------------------->|  records "released e": may let go
 * ```
 *
 * ```text
 *              suspend             suspended            confirm               recorded
 *   serving ------------> suspending -------> offered ----------> committing ----------> given
 *      ^                      |                  |                  |     ^                |
 *      |       suspendFailed, |           cancel,|                  +-----+           done |
 *      | resumed     takeBack,|         takeBack,|            recordFailed: again          v
 *      |      cancel, deadline|          deadline|                                     releasing
 *      |                      v                  |                                         |
 *      +----------------- resuming <-------------+                                recorded v
 *                                                                                      released
 * ```
 *
 * The program stands still for one and a half round trips beside the work. Where it is not to stand
 * still for so long, CONFIRM goes right behind SUSPEND and is held until there is an offer: that takes
 * half a round trip. The source commits before the target has the last set then, and keeps that for
 * the target to fetch; where the connection is lost in this moment, the program stands still until the
 * two meet again, while it would have gone on at the source.
 *
 * The program may write in serving, suspending and resuming, and nowhere else. From committing on
 * nothing is taken back: a record whose write failed may be on the disk all the same, so the source
 * writes it again until it knows that it is, with the program suspended, and says so. Where it
 * crashes before, the record that is found decides ({@linkcode sourceAfterRestart}).
 *
 * Epochs only grow. One that was taken back is burnt, and so is one that was asked about or cancelled
 * while it was not offered: the answer "serving" is a promise that it never will be given, whatever of
 * it is still under way. Burnt epochs need not
 * survive a restart, as a SUSPEND holds only for the tracking of the process that it was sent to. One
 * that is far ahead is refused, so that nobody uses all of them up.
 *
 * Requests may come twice and in any order. What is to wait is held, and put to the machine again on
 * `wake`.
 *
 * @module
 */
import type { HandoverRecord } from "../backend/handover_record.ts";

/** Leechers count on by one; a source that was started again may have forgotten some they have burnt. */
const EPOCHS_AHEAD = 2 ** 20;

/** A region under an epoch, for one leecher. */
export interface Offer {
  /** The leecher's id in hexadecimal digits. */
  readonly leech: string;
  /** From 1. */
  readonly epoch: number;
}

/** Where the source is. `epoch` is the highest that was used or burnt. */
export type SourceState =
  /** The program runs. */
  | { readonly at: "serving"; readonly epoch: number }
  /** The program is being suspended; it may still write. */
  | { readonly at: "suspending"; readonly epoch: number; readonly offer: Offer }
  /** The program is suspended, writes are locked, and the last set is known. */
  | { readonly at: "offered"; readonly epoch: number; readonly offer: Offer }
  /** Writes are let through again, and the program is being resumed. */
  | { readonly at: "resuming"; readonly epoch: number }
  /** The record "given" is being written: it may hold already. */
  | { readonly at: "committing"; readonly epoch: number; readonly offer: Offer }
  /** The region belongs to the leecher; it can be read here, and never be written again. */
  | { readonly at: "given"; readonly epoch: number; readonly offer: Offer }
  /** The record "released" is being written. */
  | { readonly at: "releasing"; readonly epoch: number; readonly offer: Offer }
  /** The leecher has everything: nobody needs the region here. */
  | { readonly at: "released"; readonly epoch: number; readonly offer: Offer };

/** What happens to the source. */
export type SourceEvent =
  /** A leecher's requests. Those of a track id that is not the present one are refused before. */
  | {
    readonly type: "suspend" | "last" | "confirm" | "outcome" | "done" | "cancel";
    readonly offer: Offer;
  }
  /** The end of what {@linkcode SourceAction} began. */
  | { readonly type: "suspended" | "suspendFailed" | "resumed" }
  | { readonly type: "recorded" | "recordFailed" }
  /** The user of the source wants the region back, or closes it. */
  | { readonly type: "takeBack" }
  /** Nobody confirmed the offer of this epoch in time, or suspending took too long. */
  | { readonly type: "deadline"; readonly epoch: number };

/** What the source is to do, in this order. */
export type SourceAction =
  /** Run the hook, flush, lock writes, collect the last set; ends in `suspended` or `suspendFailed`. */
  | "suspend"
  /** Once a suspension that goes on has ended: let writes through, run the hook; ends in `resumed`. */
  | "resume"
  /** Write the record durably, after a pause where that has just failed; ends in `recorded` or not. */
  | { readonly record: "given" | "released" }
  /** Refuse writes for ever. */
  | "fence"
  /** Answer this request with what it asks for, as the new state has it. */
  | "answer"
  /** Refuse this request: EBUSY where it may be made again soon, EPERM where never. */
  | { readonly refuse: "EBUSY" | "EPERM" }
  /** Hold this request until `wake`, for as long as its sender waits. */
  | "wait"
  /** Put all requests that are held to the machine again. */
  | "wake";

/** What follows on an event. */
export interface SourceStep {
  /** The new state; the same object where nothing changed. */
  readonly state: SourceState;
  /** What to do. */
  readonly actions: readonly SourceAction[];
}

/** What an OUTCOME tells: `leech` is to whom it is offered or given. */
export interface Outcome {
  readonly state: "serving" | "offered" | "given" | "released";
  readonly epoch: number;
  readonly leech: string | undefined;
}

/** What becomes of a state by an event. */
export function stepSource(state: SourceState, event: SourceEvent): SourceStep {
  switch (event.type) {
    case "suspend":
      return onSuspend(state, event.offer);
    case "last":
      return onLast(state, event.offer);
    case "confirm":
      return onConfirm(state, event.offer);
    case "outcome":
      return isBeyond(state, event.offer)
        ? refuse(state, "EPERM")
        : step(burn(state, event.offer), "answer");
    case "done":
      return onDone(state, event.offer);
    case "cancel":
      return onCancel(state, event.offer);
    case "takeBack":
      if (isDecided(state)) return refuse(state, "EPERM");
      return isOpen(state) ? takeBack(state) : step(state);
    case "deadline":
      return isOpen(state) && state.offer.epoch === event.epoch ? takeBack(state) : step(state);
    case "suspended":
      if (state.at !== "suspending") return step(state);
      return step({ ...state, at: "offered" }, "wake");
    case "suspendFailed":
      return state.at === "suspending" ? takeBack(state) : step(state);
    case "resumed":
      return state.at === "resuming" ? step({ ...state, at: "serving" }, "wake") : step(state);
    case "recorded":
      return onRecorded(state);
    case "recordFailed":
      return onRecordFailed(state);
  }
}

/** Where a source begins, by the record that is found. Undefined where it cannot be one. */
export function sourceAfterRestart(record: HandoverRecord): SourceState | undefined {
  const { state, epoch, leech } = record;
  if (state === "owner") return { at: "serving", epoch };
  if (state !== "given" && state !== "released") return undefined;
  return { at: state, epoch, offer: { leech, epoch } };
}

/** What a leecher is told of a state. */
export function outcomeOf(state: SourceState): Outcome {
  switch (state.at) {
    case "serving":
    case "resuming":
      return { state: "serving", epoch: state.epoch, leech: undefined };
    case "suspending":
    case "offered":
    case "committing":
      return { state: "offered", ...state.offer };
    case "given":
    case "releasing":
      return { state: "given", ...state.offer };
    case "released":
      return { state: "released", ...state.offer };
  }
}

/** Whether the program may write. */
export function sourceMayWrite(state: SourceState): boolean {
  return state.at === "serving" || state.at === "suspending" || state.at === "resuming";
}

type OpenState = Extract<SourceState, { at: "suspending" | "offered" }>;
type DecidedState = Exclude<SourceState, OpenState | { at: "serving" | "resuming" }>;

/** Whether there is an offer that can be taken back. */
function isOpen(state: SourceState): state is OpenState {
  return state.at === "suspending" || state.at === "offered";
}

/** Whether there is an offer that cannot be taken back any more. */
function isDecided(state: SourceState): state is DecidedState {
  return !isOpen(state) && state.at !== "serving" && state.at !== "resuming";
}

function holds(state: SourceState, { leech, epoch }: Offer): boolean {
  return "offer" in state && state.offer.leech === leech && state.offer.epoch === epoch;
}

function onSuspend(state: SourceState, offer: Offer): SourceStep {
  if (holds(state, offer)) return step(state, state.at === "suspending" ? "wait" : "answer");
  if (isUsed(state, offer) || isBeyond(state, offer)) return refuse(state, "EPERM");
  if (state.at !== "serving") return refuse(state, "EBUSY");
  return step({ at: "suspending", epoch: offer.epoch, offer }, "suspend", "wait");
}

function onLast(state: SourceState, offer: Offer): SourceStep {
  if (holds(state, offer) && state.at !== "suspending") return step(state, "answer");
  if (holds(state, offer)) return step(state, "wait");
  // It may overtake the SUSPEND that it belongs to.
  return isUsed(state, offer) ? refuse(state, "EPERM") : step(state, "wait");
}

function onConfirm(state: SourceState, offer: Offer): SourceStep {
  if (!holds(state, offer)) return refuse(state, "EPERM");
  switch (state.at) {
    case "suspending":
      return step(state, "wait");
    case "offered":
      return step({ ...state, at: "committing" }, { record: "given" }, "wait");
    case "committing":
      return step(state, "wait");
    case "given":
    case "releasing":
    case "released":
      return step(state, "answer");
    default:
      return refuse(state, "EPERM");
  }
}

function onDone(state: SourceState, offer: Offer): SourceStep {
  if (!holds(state, offer)) return refuse(state, "EPERM");
  switch (state.at) {
    case "given":
      return step({ ...state, at: "releasing" }, { record: "released" }, "wait");
    case "releasing":
      return step(state, "wait");
    case "released":
      return step(state, "answer");
    default:
      return refuse(state, "EPERM");
  }
}

function onCancel(state: SourceState, offer: Offer): SourceStep {
  if (isBeyond(state, offer)) return refuse(state, "EPERM");
  const burnt = burn(state, offer);
  if (!isOpen(state) || state.offer.leech !== offer.leech) return step(burnt, "answer");
  const { state: next, actions } = takeBack(burnt);
  return step(next, ...actions, "answer");
}

function onRecorded(state: SourceState): SourceStep {
  if (state.at === "committing") return step({ ...state, at: "given" }, "fence", "wake");
  if (state.at === "releasing") return step({ ...state, at: "released" }, "wake");
  return step(state);
}

function onRecordFailed(state: SourceState): SourceStep {
  if (state.at === "committing") return step(state, { record: "given" });
  if (state.at === "releasing") return step(state, { record: "released" });
  return step(state);
}

function takeBack({ epoch }: SourceState): SourceStep {
  return step({ at: "resuming", epoch }, "resume", "wake");
}

/** Whether an epoch can never be offered, or not again. */
function isUsed(state: SourceState, { epoch }: Offer): boolean {
  return epoch <= state.epoch || isDecided(state) && state.at !== "committing";
}

/** Whether an epoch is none that counting brought about: burnt, it would leave few for the others. */
function isBeyond(state: SourceState, { epoch }: Offer): boolean {
  return epoch > state.epoch + EPOCHS_AHEAD;
}

/** Sees to it that an epoch which is not open is never given. */
function burn(state: SourceState, offer: Offer): SourceState {
  if (offer.epoch <= state.epoch || isDecided(state)) return state;
  return { ...state, epoch: offer.epoch };
}

function step(state: SourceState, ...actions: SourceAction[]): SourceStep {
  return { state, actions };
}

function refuse(state: SourceState, code: "EBUSY" | "EPERM"): SourceStep {
  return step(state, { refuse: code });
}
