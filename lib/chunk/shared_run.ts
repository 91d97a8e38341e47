/**
 * Lets callers share a piece of work: those that ask while it is under way wait for the next run
 * together. Unlike with a group commit, a failure is over with the run that it happened in.
 *
 * @module
 */

/** Runs `work` so that a run begins after each call of {@linkcode SharedRun.run}, one at a time. */
export class SharedRun {
  readonly #work: () => Promise<void>;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  /** Makes it over the work, which is not begun. */
  constructor(work: () => Promise<void>) {
    this.#work = work;
  }

  /** Whether a run is under way. */
  get running(): boolean {
    return this.#running !== undefined;
  }

  /** Answers when a run that began after this call is done; throws what that one threw. */
  run(): Promise<void> {
    // First the one that waits: it begins a moment after the present one is over.
    if (this.#next !== undefined) return this.#next;
    if (this.#running === undefined) return this.#begin();
    return this.#next = this.#running.catch(() => {}).then(() => {
      this.#next = undefined;
      return this.#begin();
    });
  }

  /** Answers when nothing is under way any more, whatever became of it. */
  async idle(): Promise<void> {
    for (let last; (last = this.#next ?? this.#running) !== undefined;) await last.catch(() => {});
  }

  #begin(): Promise<void> {
    const run = (async () => {
      // Leaves #running to its assignment, also where the work fails at once.
      await Promise.resolve();
      try {
        await this.#work();
      } finally {
        this.#running = undefined;
      }
    })();
    return this.#running = run;
  }
}
