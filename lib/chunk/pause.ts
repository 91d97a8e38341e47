/**
 * Pauses of work in the background.
 *
 * @module
 */
import { setImmediate } from "node:timers";

/** Work that is answered at once may keep the event loop from turning for so long, in ms. */
const TURN_MS = 5;

/** What a timer can wait for; it fires at once where it is told to wait for longer. */
const TIMER_MOST_MS = 2 ** 31 - 1;

/** Answers after so many milliseconds, or as soon as `signal` is aborted. */
export function pauseFor(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const over = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", over);
      resolve();
    };
    const timer = setTimeout(over, Math.min(milliseconds, TIMER_MOST_MS));
    signal.addEventListener("abort", over);
  });
}

/** Lets the event loop turn now and then in work whose promises are settled at once. */
export class Breather {
  #turned = performance.now();

  /** A promise to wait for where it is time to let others have their turn. */
  breathe(): Promise<void> | undefined {
    if (performance.now() - this.#turned < TURN_MS) return;
    return new Promise((resolve) =>
      setImmediate(() => {
        this.#turned = performance.now();
        resolve();
      })
    );
  }
}
