/**
 * Lets callers share a sync: those that ask while one is under way wait for one later one together.
 *
 * @module
 */

/** How a {@linkcode GroupCommit} goes on. */
export interface GroupCommitOptions {
  /** A failed commit is followed by others: each does again whatever is not durable yet. */
  retries?: boolean;
}

/**
 * Runs `commit` so that it begins after each call of {@linkcode GroupCommit.run}, one at a time.
 * A failure stays, unless told that it may be tried again: the kernel reports a lost write once and
 * then forgets it, so no later sync could vouch for what was written before.
 */
export class GroupCommit<T = void> {
  readonly #commit: () => Promise<T>;
  readonly #retries: boolean;
  #running: Promise<T> | undefined;
  #next: Promise<T> | undefined;
  #failure: { error: unknown } | undefined;

  /** Makes a group over a function that syncs everything written before it was called. */
  constructor(commit: () => Promise<T>, options: GroupCommitOptions = {}) {
    this.#commit = commit;
    this.#retries = options.retries ?? false;
  }

  /** Whether a commit failed, after which all do. */
  get failed(): boolean {
    return this.#failure !== undefined;
  }

  /**
   * Answers what a commit answered that began after this call; throws what that one threw, or one
   * before it that stays.
   */
  run(): Promise<T> {
    if (this.#next !== undefined) return this.#next;
    if (this.#running !== undefined) return this.#next = this.#runAfter(this.#running);
    return this.#running = this.#runNow();
  }

  async #runAfter(running: Promise<T>): Promise<T> {
    await running.catch(() => {});
    this.#next = undefined;
    return await (this.#running = this.#runNow());
  }

  async #runNow(): Promise<T> {
    // Leaves #running to its assignment, also where the commit is not even begun.
    await Promise.resolve();
    try {
      if (this.#failure === undefined) return await this.#commit();
    } catch (error) {
      if (this.#retries) throw error;
      this.#failure = { error };
    } finally {
      this.#running = undefined;
    }
    throw this.#failure.error;
  }
}
