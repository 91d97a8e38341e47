/**
 * One way of a network connection, as arithmetic on times: when what is sent has left.
 *
 * @module
 */
import { Draws } from "./draws.ts";

/** A link may be so far ahead of its rate, in ms: late timers of whoever waits cost no rate then. */
const CREDIT_MS = 0.25;

/** Silences of a link: one in each period, at a moment that the seed decides. */
export interface CutOptions {
  /** Milliseconds of each silence; less than the period. */
  silence: number;
  /** Milliseconds in which there is one. */
  period: number;
}

/** When a link is silent. */
export class Cuts {
  readonly #options: CutOptions;
  readonly #since: number;
  readonly #draws: Draws;

  /** The silences from the moment `since` (ms) on. */
  constructor(options: CutOptions, since: number, seed: number) {
    this.#options = options;
    this.#since = since;
    this.#draws = new Draws(seed, "cuts");
  }

  /** When something ends that begins at `start`, takes `duration`, and rests during silences. */
  end(start: number, duration: number): number {
    const { silence, period } = this.#options;
    let at = start, left = duration;
    for (let index = Math.max(Math.floor((start - this.#since) / period), 0);; index++) {
      const slack = (period - silence) * this.#draws.at(index);
      const cut = this.#since + index * period + slack;
      if (at + left < cut) return at + left;
      if (at >= cut + silence) continue;
      left -= Math.max(cut - at, 0);
      at = cut + silence;
    }
  }
}

/**
 * See the module. What is sent goes one after the other, at the rate of the link; what is sent urgently,
 * as by a connection of its own, has half of it as long as there is something else.
 */
export class Link {
  readonly #rate: number;
  readonly #cuts: Cuts | undefined;
  /** When the last thing that was sent has left. */
  #free = -Infinity;
  /** The same of what was sent urgently. */
  #urgentFree = -Infinity;

  /** A link of `rate` bytes a second, which may be infinite. */
  constructor(rate: number, cuts?: Cuts) {
    this.#rate = rate;
    this.#cuts = cuts;
  }

  /** When so many bytes have left that are handed over at `now`: not before that. */
  carry(now: number, bytes: number): number {
    const start = Math.max(this.#free, now - CREDIT_MS);
    this.#free = this.#end(start, bytes / this.#rate * 1000);
    return this.#end(Math.max(this.#free, now), 0);
  }

  /** As {@linkcode carry}, urgently. */
  carryUrgently(now: number, bytes: number): number {
    const start = Math.max(this.#urgentFree, now), duration = bytes / this.#rate * 1000;
    const isShared = this.#free > start;
    this.#urgentFree = this.#end(start, isShared ? 2 * duration : duration);
    this.#free = isShared ? this.#end(this.#free, duration) : this.#urgentFree;
    return this.#urgentFree;
  }

  #end(start: number, duration: number): number {
    return this.#cuts === undefined ? start + duration : this.#cuts.end(start, duration);
  }
}
