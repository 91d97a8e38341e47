/**
 * When to hand over: predicts from the last rounds how long the program would stand still. Where that
 * is short enough, there are rounds all the same for as long as each is much shorter than the one before,
 * as the program then stands still for less. Pure.
 *
 * @module
 */

/** What becomes of a migration that does not come below its downtime. */
export type Strategy =
  /** Go on with rounds until the time is over, then give up. */
  | "wait"
  /** Hand over now, and fetch what is missing on demand. */
  | "force"
  /** Slow the program's writes down, ever more, until what is left is little. */
  | "throttle"
  /** Give up at once. */
  | "cancel";

/** When the source is told to commit. */
export type Confirm =
  /** Ahead where that is needed to stay below the downtime. */
  | "auto"
  /** Before what was written last is here: that saves a round trip. */
  | "ahead"
  /** Once it is here: where the connection is lost before, the program goes on at the source. */
  | "after";

/** What is aimed at. */
export interface DowntimeGoal {
  /** Milliseconds for which the program may stand still. */
  maxDowntime: number;
  /** Milliseconds that may be spent with rounds. */
  maxTime: number;
  /** What happens when rounds get no smaller, or then. */
  strategy: Strategy;
  /** See {@linkcode Confirm}. */
  confirm: Confirm;
}

/** One round: what was written during the one before was copied. */
export interface Round {
  /** Bytes that were copied. */
  bytes: number;
  /** Milliseconds that it took. */
  ms: number;
}

/** What to do next. */
export type Decision = "round" | "finalize" | "force" | "throttle" | "give up";

/** Rounds without progress after which no more is expected. */
const IDLE_ROUNDS = 3;
/** A round that is not smaller, or shorter, than this share of the one before is no progress. */
const PROGRESS = 0.8;
/** Each time the program may write at this share of the rate before, down to so many bytes a second. */
const SLOWER = 0.5, LEAST_RATE = 64 << 10;
/** Round trips of a handover: half of one for the offer, and one more for a confirmation after it. */
const ROUND_TRIPS = { ahead: 0.5, after: 1.5 };
/** A guess of what suspending and flushing take, in ms. */
const SUSPEND_MS = 3;

/** Remembers the rounds of one migration. */
export class Convergence {
  readonly #goal: DowntimeGoal;
  #last: Round | undefined;
  #before: Round | undefined;
  #idle = 0;
  #throttled = Infinity;

  /** Nothing was copied yet. */
  constructor(goal: DowntimeGoal) {
    this.#goal = goal;
  }

  /** Bytes that the last set is expected to have: as many as the last round had. */
  get expectedBytes(): number {
    return this.#last?.bytes ?? 0;
  }

  /** A round is over. */
  add(round: Round): void {
    const before = this.#last;
    const smaller = before === undefined || round.bytes < before.bytes * PROGRESS;
    this.#idle = smaller ? 0 : this.#idle + 1;
    this.#before = before;
    this.#last = round;
  }

  /**
   * The downtime of a handover now, in ms: what the program writes during a round has to be copied
   * while it stands still, at the rate of the remote in bytes a ms.
   */
  predict(roundTrip: number, rate: number): number {
    return this.#predict(this.confirm(roundTrip, rate), roundTrip, rate);
  }

  /** When the source should be told to commit. */
  confirm(roundTrip: number, rate: number): Exclude<Confirm, "auto"> {
    const { confirm, maxDowntime } = this.#goal;
    if (confirm !== "auto") return confirm;
    return this.#predict("after", roundTrip, rate) <= maxDowntime ? "after" : "ahead";
  }

  #predict(confirm: Exclude<Confirm, "auto">, roundTrip: number, rate: number): number {
    const copying = rate > 0 ? this.expectedBytes / rate : this.expectedBytes > 0 ? Infinity : 0;
    return withoutCopying(confirm, roundTrip) + copying;
  }

  /** What to do, so many ms after the beginning. */
  decide(elapsed: number, roundTrip: number, rate: number): Decision {
    const { maxDowntime, maxTime, strategy } = this.#goal;
    const isLate = elapsed >= maxTime;
    if (this.#last !== undefined && this.predict(roundTrip, rate) <= maxDowntime) {
      return !isLate && this.#shrinks(roundTrip, rate) ? "round" : "finalize";
    }
    if (strategy === "wait") return isLate ? "give up" : "round";
    if (!isLate && this.#idle < IDLE_ROUNDS) return "round";
    if (strategy === "throttle") return isLate ? "give up" : "throttle";
    return strategy === "force" ? "force" : "give up";
  }

  /**
   * Whether one more round would leave much less to copy while the program stands still. As much is
   * written during a round as that is long; before the first one, all since the region was copied.
   */
  #shrinks(roundTrip: number, rate: number): boolean {
    const least = withoutCopying(this.confirm(roundTrip, rate), roundTrip);
    if (this.predict(roundTrip, rate) <= 2 * least) return false;
    const last = this.#last, before = this.#before;
    return last === undefined || before === undefined || last.ms < before.ms * PROGRESS;
  }

  /** Bytes a second to which the program is to be slowed now. */
  throttle(): number {
    const { bytes, ms } = this.#last ?? { bytes: 0, ms: 1 };
    const written = bytes / Math.max(ms, 1) * 1000;
    this.#throttled = Math.max(Math.min(written, this.#throttled) * SLOWER, LEAST_RATE);
    // It was seen already that the program is too fast.
    this.#idle = IDLE_ROUNDS - 1;
    return Math.floor(this.#throttled);
  }
}

/** For how long a program stands still that has written nothing, in ms. */
function withoutCopying(confirm: Exclude<Confirm, "auto">, roundTrip: number): number {
  return ROUND_TRIPS[confirm] * roundTrip + SUSPEND_MS;
}
