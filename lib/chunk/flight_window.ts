/**
 * When another request to a remote is worth beginning: early enough that the link never rests, and no
 * earlier, as everything beyond stands in a queue in front of somebody who waits for a read.
 *
 * What fills the link is its rate times its latency, both measured on the requests themselves:
 *
 * - The latency is the shortest of any request. Most are longer where this host has no time for
 *   answers, or takes them late; fewer requests would not make those come sooner.
 * - The rate is that of `answer_rate.ts`: known within a round trip, and followed up and down.
 *
 * So much is in flight, and a surplus. That grows until even the quickest request of a round, which
 * is as long as one takes, stands in a queue of some ms: then the link never rests, whatever late
 * answers make of it. It shrinks by what the queue is longer, but never so far that less is in flight
 * than lately came in a round trip: where that makes a queue, it is none that fewer requests shorten.
 *
 * Requests are begun at a pace that follows the rate, so that a window that opens is no burst.
 *
 * @module
 */
import { AnswerRate } from "./answer_rate.ts";
import { Pace } from "./pace.ts";

/** How a {@linkcode FlightWindow} is bounded. */
export interface FlightWindowOptions {
  /** Bytes of a typical request. */
  requestBytes: number;
  /** So many requests, always; by measurement unless told. */
  workers?: number | undefined;
  /** Whether who waits for a read does not stand behind these requests; he does unless told. */
  besideUrgent?: boolean | undefined;
  /** The queue that is aimed at, in ms; 3 unless told. */
  queueMs?: number | undefined;
}

const MOST_BYTES = 192 << 20;
const MOST_REQUESTS = { OTHERS: 256, EXPECTED: 1024 } as const;
/**
 * Before the first answer: so many bytes at once, again after so many ms, and so many in all. That is a
 * quarter of what a link of 1 GB/s carries, and keeps nobody waiting there for longer than 4 ms.
 */
const FIRST = { BYTES: 4 << 20, EVERY_MS: 16, MOST_BYTES: 32 << 20 } as const;
/** The same where nobody waits behind it: all that such a link carries in 100 ms. */
const FIRST_BESIDE = { BYTES: 2 << 20, EVERY_MS: 2.1, MOST_BYTES: 104 << 20 } as const;
/** The surplus in the beginning, and beyond what lately came in a round trip at least: ms of the rate. */
const SURPLUS_MS = 2;
/** The queue that is aimed at unless told: so many ms, or this share of the latency where that is more. */
const QUEUE = { MS: 3, SHARE: 1 / 16 } as const;
/** The surplus changes by so much of what the queue is off its aim: what it does shows a round later. */
const GAIN = 0.5;
/** The rate may be overrated by this share: so far under nothing the surplus can shrink. */
const OVERRATED = 0.25;
/** Requests are begun at so many times the rate, and those that are late by so many ms at once. */
const PACE = { TIMES: 1.25, LATE_MS: 4 } as const;
/**
 * The shortest latency is measured anew after so many times itself, at most so many ms: with little in
 * flight, for some rounds.
 */
const MEASURE = { EVERY_TIMES: 100, MOST_MS: 30_000, ROUNDS: 3 } as const;

/** See the module. Pure: whoever uses it tells the time, in ms. */
export class FlightWindow {
  readonly #workers: number | undefined;
  readonly #requestBytes: number;
  readonly #queueMs: number;
  readonly #rate = new AnswerRate();
  readonly #pace: Pace;
  #limit: number;
  #latency = Infinity;
  #surplus: number = SURPLUS_MS;
  #roundStart = -Infinity;
  #roundLatency = Infinity;
  /** Whether a request was held back in this round. */
  #held = false;
  #measuredAt = -Infinity;
  /** Rounds to go until the shortest latency is measured. */
  #measuring = 0;

  /** Makes a window that knows nothing yet. */
  constructor(options: FlightWindowOptions) {
    const { requestBytes, workers, besideUrgent = false, queueMs = QUEUE.MS } = options;
    this.#requestBytes = requestBytes;
    this.#queueMs = queueMs;
    this.#workers = workers;
    const first = besideUrgent ? FIRST_BESIDE : FIRST;
    this.#limit = Math.max(first.MOST_BYTES, requestBytes * 2);
    const bytes = Math.max(first.BYTES, requestBytes * 2);
    const least = besideUrgent ? 0 : bytes;
    this.#pace = new Pace({ rate: bytes / first.EVERY_MS, most: bytes, least });
  }

  /** Bytes that are worth having in flight. */
  get bytes(): number {
    return this.#limit;
  }

  /** The shortest time that an answer took, in ms; 0 before the first one. */
  get latency(): number {
    return this.#latency === Infinity ? 0 : this.#latency;
  }

  /** The rate that was measured, in bytes per second; 0 before. */
  get rate(): number {
    return this.#rate.best * 1000;
  }

  /**
   * Milliseconds until another request may be begun beside so many with so many bytes: 0 for now,
   * Infinity for not before one of them is answered. What is `expected` to be read soon is in nobody's
   * way: it goes without a pace, and as far as is risked before anything is known.
   */
  delay(requests: number, bytes: number, now: number, expected = false): number {
    if (requests === 0) return 0;
    if (this.#workers !== undefined) return requests < this.#workers ? 0 : Infinity;
    const limit = expected ? this.#expectedLimit : this.#limit;
    const most = expected ? MOST_REQUESTS.EXPECTED : MOST_REQUESTS.OTHERS;
    const room = requests < most && bytes < limit;
    const delay = !room ? Infinity : expected ? 0 : this.#pace.delay(now);
    if (delay > 0) this.#held = true;
    return delay;
  }

  get #expectedLimit(): number {
    return this.#latency === Infinity ? FIRST.MOST_BYTES : Math.max(this.#limit, FIRST.MOST_BYTES);
  }

  /** A request of so many bytes is begun. */
  began(bytes: number, now: number): void {
    this.#pace.use(bytes, now);
  }

  /** A request that was begun at `startedAt` was answered. */
  answered(bytes: number, startedAt: number, now: number): void {
    const latency = Math.max(now - startedAt, 0.01);
    this.#roundLatency = Math.min(latency, this.#roundLatency);
    this.#latency = Math.min(latency, this.#latency);
    const known = this.#rate.best;
    this.#rate.answered(bytes, startedAt, now);
    if (startedAt >= this.#roundStart) this.#endRound(now);
    else if (this.#rate.best > known && this.#measuring === 0) this.#follow();
  }

  /** The first request that was begun in this round was answered. */
  #endRound(now: number): void {
    if (this.#measuring === 0) {
      this.#rate.beginRound(now, this.#held);
      if (this.#held) this.#adjustSurplus();
    }
    if (this.#isMeasuring(now)) this.#set(0);
    else this.#follow();
    this.#roundStart = now;
    this.#roundLatency = Infinity;
    this.#held = false;
  }

  /** A queue in which even the quickest request of a round stood is there all the time. */
  #adjustSurplus(): void {
    const queue = this.#roundLatency - this.#latency;
    const aim = Math.max(this.#queueMs, this.#latency * QUEUE.SHARE);
    const surplus = this.#surplus + (aim - queue) * GAIN;
    const most = Math.max(this.#latency, SURPLUS_MS, aim), least = -this.#latency * OVERRATED;
    this.#surplus = Math.max(Math.min(surplus, most), least);
  }

  /** Whether the shortest latency is being measured anew; what is known stands until it is. */
  #isMeasuring(now: number): boolean {
    const every = Math.min(this.#latency * MEASURE.EVERY_TIMES, MEASURE.MOST_MS);
    if (now - this.#measuredAt > every) {
      if (this.#measuredAt > -Infinity) this.#measuring = MEASURE.ROUNDS;
      this.#measuredAt = now;
    }
    if (this.#measuring === 0) return false;
    // What is in flight by now was queued behind more: only the last round counts.
    if (--this.#measuring === 1) this.#latency = Infinity;
    return this.#measuring > 0;
  }

  #follow(): void {
    const { best, average } = this.#rate;
    if (best === 0) return;
    const enough = average * (this.#latency + SURPLUS_MS);
    this.#set(Math.max(best * (this.#latency + this.#surplus), enough));
  }

  #set(limit: number): void {
    this.#limit = Math.min(Math.max(limit, this.#requestBytes * 2), MOST_BYTES);
    if (this.#latency === Infinity) return;
    const rate = PACE.TIMES * this.#limit / this.#latency;
    this.#pace.set({ rate, most: Math.max(rate * PACE.LATE_MS, this.#requestBytes), least: 0 });
  }
}
