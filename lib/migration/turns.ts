/**
 * Actions that go on one at a time, in the order in which they were asked for.
 *
 * @module
 */
import type { TelemapError } from "../backend/errors.ts";
import { pauseFor } from "../chunk/pause.ts";

/** See the module. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Acts when those before are over, whatever became of them; answers and throws what that does. */
  take<T>(action: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(action, action);
    this.#last = turn.catch(() => {});
    return turn;
  }

  /** As {@linkcode take}, or not at all: throws what `late` makes where it did not begin in so many ms. */
  async takeWithin(
    milliseconds: number,
    action: () => Promise<void>,
    late: () => TelemapError,
  ): Promise<void> {
    const begun = new AbortController();
    let isLate = false;
    const done = this.take(async () => {
      if (isLate) return;
      begun.abort();
      await action();
    });
    await pauseFor(milliseconds, begun.signal);
    if (begun.signal.aborted) return await done;
    isLate = true;
    throw late();
  }

  /** Answers when those are over that were asked for. */
  async over(): Promise<void> {
    await this.#last;
  }
}
