/**
 * The rate at which a remote answers, told from its answers: what one round brought on average, and
 * how close some answers in a row followed one another.
 *
 * The average of a round is never too high, but too low where the remote had nothing to do for a
 * while, as less was in flight than the link could hold. Answers in a row come as close as the link
 * lets them, or as their requests were sent: so of both times the longer one counts. They can come
 * closer where this host was late for the first of them, so that is not believed for longer than the
 * next round.
 *
 * @module
 */

/** Answers in a row that are looked at, in the first round and later. */
const ROW = { FIRST: 4, LATER: 16 } as const;
/** A row that came within fewer ms counts as one of so many. */
const ROW_LEAST_MS = 2.5;
/** Rounds whose best average counts. */
const ROUNDS = 8;
/** The first rounds, whose average is that of what was sent when nothing was known. */
const FIRST_ROUNDS = 2;
/** A row may be so many times as good as the best average. */
const OVER_AVERAGE = 1.25;

/** See the module. Pure. Rates are in bytes a ms. */
export class AnswerRate {
  /** Of the latest answers, in a ring: when they were asked for, when they came, all bytes by then. */
  readonly #startedAt = new Float64Array(ROW.LATER);
  readonly #at = new Float64Array(ROW.LATER);
  readonly #total = new Float64Array(ROW.LATER);
  #answers = 0;
  #bytes = 0;
  #rounds = 0;
  #roundStart = NaN;
  #roundBytes = 0;
  /** Of the best row in this round, and in the one before. */
  #peak = 0;
  #lastPeak = 0;
  readonly #averages: number[] = [];

  /** The best average of the last rounds; 0 before there is one. */
  get average(): number {
    return Math.max(0, ...this.#averages);
  }

  /** What the remote may be up to; 0 before anything is known. */
  get best(): number {
    const { average } = this, peak = Math.max(this.#peak, this.#lastPeak);
    if (this.#rounds <= FIRST_ROUNDS) return Math.max(peak, average);
    return Math.max(Math.min(peak, average * OVER_AVERAGE), average);
  }

  /** An answer came to a request that was sent at `startedAt`. */
  answered(bytes: number, startedAt: number, now: number): void {
    this.#bytes += bytes;
    const index = this.#answers++ % ROW.LATER;
    this.#startedAt[index] = startedAt;
    this.#at[index] = now;
    this.#total[index] = this.#bytes;
    const row = this.#rounds <= 1 ? ROW.FIRST : ROW.LATER;
    if (this.#answers < row) return;
    const first = (this.#answers - row) % ROW.LATER;
    const sent = startedAt - this.#startedAt[first]!, came = now - this.#at[first]!;
    // The first one had come by the time that the row began.
    const rate = (this.#bytes - this.#total[first]!) / Math.max(sent, came, ROW_LEAST_MS);
    this.#peak = Math.max(rate, this.#peak);
  }

  /** A round begins, and one may be over: it tells how much goes, unless nobody `wanted` more. */
  beginRound(now: number, wanted: boolean): void {
    const average = (this.#bytes - this.#roundBytes) / (now - this.#roundStart);
    if (average > 0 && (wanted || average > this.average)) {
      this.#averages.push(average);
      if (this.#averages.length > ROUNDS) this.#averages.shift();
    }
    if (wanted || this.#peak > this.#lastPeak) this.#lastPeak = this.#peak;
    this.#peak = 0;
    this.#rounds++;
    this.#roundStart = now;
    this.#roundBytes = this.#bytes;
  }
}
