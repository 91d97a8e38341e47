/**
 * How much is worth having in flight to a remote: enough that it never waits for the next request,
 * and no more, as everything beyond stands in a queue in front of somebody.
 *
 * That is its rate times its round-trip time, both of which are measured on the requests
 * themselves. In the beginning the window grows with every answer that comes as quickly as the
 * first ones did; from the first slow one on, it follows what the last rounds achieved, and half as
 * much again to find out whether more would go.
 *
 * @module
 */

/** How a {@linkcode FlightWindow} is bounded. */
export interface FlightWindowOptions {
  /** Bytes of a typical request. */
  requestBytes: number;
  /** So many requests, always; by measurement unless told. */
  workers?: number | undefined;
}

const FIRST_BYTES = 16 << 20;
const LEAST_BYTES = 4 << 20;
const MOST_BYTES = 192 << 20;
const MOST_REQUESTS = 256;
/** By how many times its bytes an answer that came quickly widens the window in the beginning. */
const GROWTH = 7;
/** An answer is quick up to so many times the shortest latency, and so many ms. */
const QUICK = { TIMES: 1.5, MS: 3 } as const;
/** Rounds whose best rate counts. */
const ROUNDS = 8;
/** The shortest latency is measured anew so often, in ms: with little in flight, for some rounds. */
const MEASURE = { EVERY_MS: 30_000, ROUNDS: 3 } as const;
/** How much more than the measured rate fills is let into flight. */
const PROBE = 1.5;

/** See the module. Pure: whoever uses it tells the time, in ms. */
export class FlightWindow {
  readonly #workers: number | undefined;
  readonly #least: number;
  #limit: number;
  #shortest = Infinity;
  #starting = true;
  #roundStart = -Infinity;
  #roundBytes = 0;
  #measuredAt = -Infinity;
  /** Rounds to go until the shortest latency is measured. */
  #measuring = 0;
  readonly #rates: number[] = [];

  /** Makes a window that knows nothing yet. */
  constructor({ requestBytes, workers }: FlightWindowOptions) {
    this.#least = Math.max(LEAST_BYTES, requestBytes * 2);
    this.#workers = workers;
    this.#limit = Math.max(FIRST_BYTES, this.#least);
  }

  /** Bytes that are worth having in flight. */
  get bytes(): number {
    return this.#limit;
  }

  /** Whether another request may be begun beside so many with so many bytes. */
  hasRoom(requests: number, bytes: number): boolean {
    if (requests === 0) return true;
    if (this.#workers !== undefined) return requests < this.#workers;
    return requests < MOST_REQUESTS && bytes < this.#limit;
  }

  /** The shortest time that an answer took, in ms; 0 before the first one. */
  get latency(): number {
    return this.#shortest === Infinity ? 0 : this.#shortest;
  }

  /** The best rate of the last rounds, in bytes per second; 0 before the first one is over. */
  get rate(): number {
    return this.#rates.length === 0 ? 0 : Math.max(...this.#rates) * 1000;
  }

  /** A request that was begun at `startedAt` was answered. */
  answered(bytes: number, startedAt: number, now: number): void {
    const latency = Math.max(now - startedAt, 0.01);
    this.#shortest = Math.min(latency, this.#shortest);
    this.#roundBytes += bytes;
    if (this.#starting) {
      const quick = Math.max(this.#shortest * QUICK.TIMES, this.#shortest + QUICK.MS);
      if (latency <= quick) this.#set(this.#limit + bytes * GROWTH);
      else this.#starting = false;
    }
    if (startedAt >= this.#roundStart) this.#endRound(now);
  }

  /** The first request that was begun in this round was answered: so much came in the meantime. */
  #endRound(now: number): void {
    const lasted = now - this.#roundStart;
    if (lasted > 0 && lasted < Infinity) {
      this.#rates.push(this.#roundBytes / lasted);
      if (this.#rates.length > ROUNDS) this.#rates.shift();
      if (!this.#starting) this.#follow(now);
    }
    this.#roundStart = now;
    this.#roundBytes = 0;
  }

  #follow(now: number): void {
    if (now - this.#measuredAt > MEASURE.EVERY_MS) {
      // The first measurement stands as long as a later one does.
      if (this.#measuredAt > -Infinity) this.#measuring = MEASURE.ROUNDS;
      this.#measuredAt = now;
    }
    if (this.#measuring > 0) {
      // What is in flight by now was queued behind more: only the last round counts.
      if (--this.#measuring === 1) this.#shortest = Infinity;
      return this.#set(0);
    }
    this.#set(Math.max(...this.#rates) * this.#shortest * PROBE);
  }

  #set(limit: number): void {
    this.#limit = Math.min(Math.max(limit, this.#least), MOST_BYTES);
  }
}
