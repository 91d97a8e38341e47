/**
 * Bytes that may be begun by now, at a rate that can change: what somebody did not use in time, as
 * his timer was late, he may use at once, up to some ms of the rate.
 *
 * @module
 */

/** How fast a {@linkcode Pace} is. */
export interface PaceOptions {
  /** Bytes that are earned a ms. */
  rate: number;
  /** So many are kept, for whoever is late. */
  most: number;
  /** So many there have to be before more is begun once all are used; 0 for none. */
  least: number;
}

/** See the module. Pure: whoever uses it tells the time, in ms. */
export class Pace {
  #options: PaceOptions;
  #credit: number;
  #usedUp = false;
  #at = -Infinity;

  /** Begins with as many bytes as are kept. */
  constructor(options: PaceOptions) {
    this.#options = options;
    this.#credit = options.most;
  }

  /** Goes on otherwise. */
  set(options: PaceOptions): void {
    this.#options = options;
  }

  /** Milliseconds until something may be begun, of whatever size; 0 for now. */
  delay(now: number): number {
    this.#earn(now);
    const { rate, least } = this.#options;
    if (this.#credit >= least) this.#usedUp = false;
    return this.#usedUp ? (least - this.#credit) / rate : 0;
  }

  /** Something of so many bytes is begun, whether it may or not. */
  use(bytes: number, now: number): void {
    this.#earn(now);
    this.#credit -= bytes;
    if (this.#credit <= 0) this.#usedUp = true;
  }

  #earn(now: number): void {
    const { rate, most } = this.#options;
    const earned = now > this.#at && this.#at > -Infinity ? (now - this.#at) * rate : 0;
    this.#credit = Math.min(this.#credit + earned, most);
    this.#at = now;
  }
}
