/**
 * What can be made of the record of who owns a region where nobody runs and nobody is asked. Pure;
 * every step is one of the tables of `source_handover.ts` and `target_handover.ts`.
 *
 * A source that has not committed goes on as the owner: what it had offered was in no record, and
 * whoever was offered it is told so when he asks. One that has committed stays fenced. A target
 * cannot know what its source has decided, so that it becomes the owner by the user's word alone.
 *
 * @module
 */
import type { HandoverRecord } from "../backend/handover_record.ts";
import { sourceAfterRestart, stepSource } from "./source_handover.ts";
import { stepTarget, targetAfterRestart, targetMayWrite } from "./target_handover.ts";

/** Which side of a handover has the record; `owner`: it may become the source of one. */
export type HandoverRole = "owner" | "source" | "target";

/** What a record comes to by itself. */
export type Verdict =
  /** The region is owned here, and whole. */
  | "owned"
  /** The region was given away: it stays fenced. */
  | "fenced"
  /** The region is owned here, and what is absent lies at the source. */
  | "incomplete"
  /** It is a copy of a region that the source owned when it was written. */
  | "copy"
  /** The source may have given it, or not: only that can tell. */
  | "undecided";

/** What {@linkcode settle} answers. */
export interface Settlement {
  /** What holds once `write` is written. */
  readonly verdict: Verdict;
  /** What is to be written durably, if anything. */
  readonly write?: Pick<HandoverRecord, "state" | "epoch" | "promoted">;
}

/** Which side has such a record. */
export function roleOf(record: HandoverRecord): HandoverRole {
  if (record.state === "owner") return "owner";
  return sourceAfterRestart(record) === undefined ? "target" : "source";
}

/** Settles a record by itself; `sourceIsDead`: the source will never come back, says the user. */
export function settle(record: HandoverRecord, { sourceIsDead = false } = {}): Settlement {
  const source = sourceAfterRestart(record);
  if (source !== undefined) {
    const { actions } = stepSource(source, { type: "takeBack" });
    const isRefused = actions.some((action) => typeof action === "object" && "refuse" in action);
    return { verdict: isRefused ? "fenced" : "owned" };
  }
  const target = targetAfterRestart(record)?.state;
  if (target === undefined) throw new RangeError(`Cannot settle a record of ${record.state}`);
  if (sourceIsDead) {
    const { actions } = stepTarget(target, { type: "promote" });
    for (const action of actions) {
      if (typeof action !== "object" || !("record" in action)) continue;
      const { record: state, epoch } = action;
      return { verdict: "owned", write: { state, epoch, promoted: true } };
    }
  }
  if (targetMayWrite(target)) return { verdict: "incomplete" };
  return { verdict: target.at === "following" ? "copy" : "undecided" };
}
