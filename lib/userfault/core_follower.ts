/**
 * Keeps the thread that resolves faults on the core of the thread whose faults they are: the two take
 * turns, and on different cores each would wait for the other's to wake up.
 *
 * The scheduler parts them whenever a core has nothing to do. So one that does nothing but to resolve
 * faults is kept where the other one is. Where several threads fault there is no such core.
 *
 * @module
 */
import { allowCores, allowedCores, countCores, moveToCoreOf } from "../../ffi/affinity.ts";

/** Between looks at where the other one is, each of which takes as long as some faults. */
const LEAST_MS = 2;
/** The same where it was there several times. */
const MOST_MS = 16;
/** The same where it seems to be elsewhere now. */
const SOON_MS = 1;
/** A thread on this core that takes turns with this one is mostly back within less. */
const LONG_TURN_MS = 0.025;

/** See the module. All is called on the thread that resolves faults. */
export class CoreFollower {
  /** Where this thread may run. */
  readonly #allowed = allowedCores();
  readonly #hasChoice = countCores(this.#allowed) > 1;
  #mayStay: boolean;
  #isKept = false;
  #pause = LEAST_MS;
  /** The thread that faulted at the last look; 0 for none. */
  #followed = 0;
  #lookedAt = -Infinity;

  /** `mayStay`: this thread has no other work. */
  constructor({ mayStay }: { mayStay: boolean }) {
    this.#mayStay = mayStay;
  }

  /**
   * Looks from time to time where a thread is that faulted after a turn of so many ms; 0 is one that
   * is not known.
   */
  follow(thread: number, turn: number): void {
    if (!this.#hasChoice) return;
    const now = performance.now();
    if (now - this.#lookedAt < (turn > LONG_TURN_MS ? SOON_MS : this.#pause)) return;
    this.#lookedAt = now;
    const isSame = thread === this.#followed;
    this.#followed = thread;
    if (isSame && thread !== 0) this.#goTo(thread);
    else this.#letGo();
  }

  /** There is other work from now on, which may need a core of its own. */
  leave(): void {
    this.#mayStay = false;
    this.#letGo();
  }

  #goTo(thread: number): void {
    try {
      const found = moveToCoreOf(thread, this.#allowed, { stay: this.#mayStay });
      if (found !== "away" && this.#mayStay) this.#isKept = true;
      this.#pause = found === "there" ? Math.min(this.#pause * 2, MOST_MS) : LEAST_MS;
    } catch {
      // It is gone, or a thread of another process.
      this.#letGo();
    }
  }

  #letGo(): void {
    if (this.#isKept) allowCores(this.#allowed);
    this.#isKept = false;
  }
}
