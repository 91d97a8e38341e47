/**
 * Keeps the thread that resolves faults on the core of the thread whose faults they are: the two take
 * turns, and on different cores each would wait for the other's to wake up.
 *
 * @module
 */
import { moveToCoreOf } from "../../ffi/affinity.ts";
import type { Reactor } from "../net/reactor.ts";

/** Threads on several cores that wait in turn would have this one go from core to core. */
const EVERY_MS = 20;

/** See the module. */
export class CoreFollower {
  readonly #reactor: Reactor;
  #followedAt = -Infinity;

  /** Follows for the thread of that reactor. */
  constructor(reactor: Reactor) {
    this.#reactor = reactor;
  }

  /** Goes to the core of a thread that waits, unless that was just done; 0 is none that is known. */
  follow(thread: number): void {
    const now = performance.now();
    if (thread === 0 || now - this.#followedAt < EVERY_MS) return;
    this.#followedAt = now;
    try {
      moveToCoreOf(thread);
      // Where this one was there already, it is the other one itself that takes long.
      this.#reactor.rejoined();
    } catch {
      // It is gone, or a thread of another process: polling has to do.
    }
  }
}
