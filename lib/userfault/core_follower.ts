/**
 * Keeps the thread that resolves faults on the core of the thread whose faults they are: the two take
 * turns, and on different cores each would wait for the other's to wake up.
 *
 * A thread that wakes up after a rest is put on a core that is free, away from the other one. So one
 * that does nothing but to resolve faults stays where it was moved to, until it has to follow again.
 *
 * @module
 */
import { allowCores, allowedCores, moveToCoreOf } from "../../ffi/affinity.ts";
import type { Reactor } from "../net/reactor.ts";

/** Threads on several cores that wait in turn would have this one go from core to core. */
const EVERY_MS = 5;

/** See the module. */
export class CoreFollower {
  readonly #reactor: Reactor;
  /** Where this thread may run. */
  readonly #allowed = allowedCores();
  #stay: boolean;
  #followedAt = -Infinity;

  /** Follows for the thread of that reactor, the present one; `stay`: it has no other work. */
  constructor(reactor: Reactor, options: { stay: boolean }) {
    this.#reactor = reactor;
    this.#stay = options.stay;
  }

  /** Goes to the core of a thread that waits, unless that was just done; 0 is none that is known. */
  follow(thread: number): void {
    const now = performance.now();
    if (thread === 0 || now - this.#followedAt < EVERY_MS) return;
    this.#followedAt = now;
    try {
      moveToCoreOf(thread, this.#allowed, { stay: this.#stay });
      // Where this one was there already, it is the other one itself that takes long.
      this.#reactor.rejoined();
    } catch {
      // It is gone, or a thread of another process: polling has to do.
    }
  }

  /** There is other work from now on, which may need a core of its own. */
  leave(): void {
    if (this.#stay) allowCores(this.#allowed);
    this.#stay = false;
  }
}
