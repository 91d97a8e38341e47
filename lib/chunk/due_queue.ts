/**
 * Waiting for moments of `performance.now()`: never less, and as a rule less than half a
 * millisecond more, where `setTimeout` alone is late by one to two milliseconds.
 *
 * Each moment is absolute, so that lateness never adds up. A timer goes off ahead of it, and the
 * rest is slept by another thread. All who wait share them.
 *
 * @module
 */
import { openSleep } from "../../ffi/sleep.ts";

/** What is longer than this, in ms, begins with a timer. */
const NAP_MAX_MS = 3;
/** So much sooner than asked for, in ms, a timer is set: it can be late by nearly as much. */
const TIMER_AHEAD_MS = 2;
/** A shorter sleep than this, in ms, is not worth its cost. */
const NAP_MIN_MS = 0.05;

/** Somebody who waits. */
interface Entry {
  readonly at: number;
  readonly resolve: () => void;
}

/** See the module. Needs `--allow-ffi`. */
export class DueQueue {
  /** The next one first; those of the same moment in the order in which they came. */
  readonly #entries: Entry[] = [];
  readonly #sleep = openSleep();
  readonly #naps = new Set<Promise<void>>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** For whom the timer is set, and until when the shortest nap lasts. */
  #timerFor = Infinity;
  #napUntil = Infinity;
  #closed = false;

  /** Answers when the clock has reached `at`, or the queue is closed. */
  until(at: number): Promise<void> {
    if (this.#closed) return Promise.resolve();
    if (at <= performance.now()) {
      // Nobody is answered before those who came sooner.
      if ((this.#entries[0]?.at ?? Infinity) <= at) this.#expire();
      return Promise.resolve();
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    const index = this.#indexBehind(at);
    this.#entries.splice(index, 0, { at, resolve });
    if (index === 0) this.#arm();
    return promise;
  }

  /** Answers all who wait at once; then when no thread sleeps any more, in a few ms. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const { resolve } of this.#entries.splice(0)) resolve();
    await Promise.all(this.#naps);
  }

  /** Where an entry belongs that is due at `at`. */
  #indexBehind(at: number): number {
    let low = 0, high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#entries[middle]!.at <= at) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #expire(): void {
    const due = this.#entries.splice(0, this.#indexBehind(performance.now()));
    for (const { resolve } of due) resolve();
    this.#arm();
  }

  /** Sees to it that somebody wakes up in time for the next entry. */
  #arm(): void {
    const next = this.#entries[0];
    if (next === undefined) return;
    const left = next.at - performance.now();
    if (left <= NAP_MAX_MS) {
      if (next.at < this.#napUntil - NAP_MIN_MS) this.#nap(next.at, left);
      return;
    }
    if (next.at >= this.#timerFor) return;
    clearTimeout(this.#timer);
    this.#timerFor = next.at;
    this.#timer = setTimeout(() => {
      this.#timerFor = Infinity;
      this.#expire();
    }, Math.floor(left - TIMER_AHEAD_MS));
  }

  #nap(until: number, milliseconds: number): void {
    this.#napUntil = until;
    const nap = this.#sleep(Math.ceil(Math.max(milliseconds, NAP_MIN_MS) * 1000)).then(() => {
      this.#naps.delete(nap);
      if (this.#napUntil === until) this.#napUntil = Infinity;
      this.#expire();
    });
    this.#naps.add(nap);
  }
}
