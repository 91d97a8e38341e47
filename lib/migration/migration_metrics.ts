/**
 * What a leecher tells of its migration. Pure.
 *
 * @module
 */
import type { Compared } from "./leeched_region.ts";
import type { TargetState } from "./target_handover.ts";

/** Where a leecher is. */
export type LeecherState =
  /** The region is copied the first time. */
  | "copying"
  /** What is written is copied, round by round. */
  | "following"
  /** The source was asked to suspend its program. */
  | "asking"
  /** The program stands still, and what it wrote last is on its way. */
  | "receiving"
  /** The source was asked to give the region: only it can tell whether it has. */
  | "confirming"
  /** The source is told to go on: only it can tell whether it does. */
  | "cancelling"
  /** The region is here, and what is missing comes from the source. */
  | "owner"
  /** The region is here, and the source is needed no more. */
  | "complete"
  /** The end: the program goes on at the source. */
  | "cancelled"
  /** The end: the source gave the region to somebody else. */
  | "lost";

/** What a migration came to; times in ms. */
export interface MigrationMetrics {
  /** Where it is. */
  state: LeecherState;
  /** From the beginning to the handover, or until now. */
  totalMs: number;
  /** Rounds of copying what was written. */
  rounds: number;
  /** Bytes of the region. */
  size: number;
  /** Bytes that came over the network. */
  receivedBytes: number;
  /** Bytes of chunks that were copied more than once. */
  repeatedBytes: number;
  /** Bytes of chunks that were all zeroes, which do not travel. */
  zeroBytes: number;
  /** Bytes that are here. */
  localBytes: number;
  /** How old what is here is: since the beginning of the last round that is over. */
  lagMs: number;
  /** Bytes that are known to be written at the source since, and are still to come. */
  lagBytes: number;
  /** The epoch of the handover; 0 before. */
  epoch: number;
  /** Whether this side became the owner without the word of its source. */
  promoted: boolean;
  /** The downtime that was predicted at the last look. */
  predictedDowntimeMs: number;
  /** How long the program stood still, as this side saw it, and its parts. */
  downtimeMs: number;
  /** Of it: the program suspended itself. */
  suspendMs: number;
  /** Of it: what it wrote was flushed. */
  flushMs: number;
  /** Of it: what was written last came over. */
  lastSetMs: number;
  /** Of it: the source confirmed, and the program may go on here. */
  confirmMs: number;
  /** Bytes of the last set. */
  lastSetBytes: number;
  /** Bytes a second to which the program's writes were slowed; 0 where they were not. */
  throttledRate: number;
  /** Accesses since the handover that had to wait for the source. */
  faults: FaultLatency;
  /** What the comparison with the source found at the end, in chunks. */
  compared: Compared;
  /** The root digest of what was given, in hexadecimal digits, once both sides agree on it; empty before. */
  root: string;
}

/** How long accesses waited, in ms. */
export interface FaultLatency {
  /** How many. */
  count: number;
  /** Half of them, no longer than this. */
  p50Ms: number;
  /** All but a hundredth of them. */
  p99Ms: number;
}

/** What a state of the table is called; `copied`: everything was copied once. */
export function leecherStateOf(state: TargetState, copied: boolean): LeecherState {
  switch (state.at) {
    case "following":
      return copied ? "following" : "copying";
    case "preparing":
      return "asking";
    case "doubting":
      return "confirming";
    case "taken":
    case "completing":
    case "promoting":
      return "owner";
    case "owner":
      return "complete";
    default:
      return state.at;
  }
}
