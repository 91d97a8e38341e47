/**
 * A clock that stands still until there is nothing to do but to wait, and then goes on to the next
 * timer. So what a program does over seconds takes a moment, and the same each time.
 *
 * @module
 */
import { setImmediate } from "node:timers";

/** So long, in ms of the clock, whatever is run may take. */
const MOST_MS = 3_600_000;
/** Turns of the event loop without a timer after which nothing can go on any more. */
const IDLE_TURNS = 100;

interface Timer {
  at: number;
  callback: () => void;
}

/** Stands for `setTimeout`, `clearTimeout` and `performance.now` until it is disposed of. */
export class VirtualClock implements Disposable {
  #now = 0;
  #ids = 0;
  readonly #timers = new Map<number, Timer>();
  readonly #restore: () => void;

  /** Takes over, at 0 ms. */
  constructor() {
    const { setTimeout, clearTimeout } = globalThis;
    const now = performance.now;
    this.#restore = () => {
      Object.assign(globalThis, { setTimeout, clearTimeout });
      performance.now = now;
    };
    Object.assign(globalThis, {
      setTimeout: (callback: () => void, milliseconds = 0) => {
        this.#timers.set(++this.#ids, { at: this.#now + Math.max(milliseconds, 0), callback });
        return this.#ids;
      },
      clearTimeout: (id: number) => void this.#timers.delete(id),
    });
    performance.now = () => this.#now;
  }

  /** Lets timers go off, the next one whenever nothing else is left to do, until `work` is done. */
  async run<T>(work: Promise<T>): Promise<T> {
    const began = this.#now;
    let over = false;
    const end = () => void (over = true);
    work.then(end, end);
    for (let idle = 0;; idle++) {
      await new Promise<void>((resolve) => setImmediate(() => resolve()));
      if (over) return await work;
      if (this.#next()) idle = 0;
      if (idle > IDLE_TURNS) throw new Error("All wait for one another");
      if (this.#now - began > MOST_MS) throw new Error("It goes on for hours");
    }
  }

  /** Forgets the timers, and gives the real ones back. */
  [Symbol.dispose](): void {
    this.#timers.clear();
    this.#restore();
  }

  /** Lets the next timer go off; answers whether there is one. */
  #next(): boolean {
    let next: [number, Timer] | undefined;
    for (const entry of this.#timers) {
      if (next === undefined || entry[1].at < next[1].at) next = entry;
    }
    if (next === undefined) return false;
    const [id, { at, callback }] = next;
    this.#timers.delete(id);
    this.#now = Math.max(this.#now, at);
    callback();
    return true;
  }
}
