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
export class GroupCommit {
  readonly #commit: () => Promise<void>;
  readonly #retries: boolean;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #failure: { error: unknown } | undefined;

  /** Makes a group over a function that syncs everything written before it was called. */
  constructor(commit: () => Promise<void>, options: GroupCommitOptions = {}) {
    this.#commit = commit;
    this.#retries = options.retries ?? false;
  }

  /** Whether a commit failed, after which all do. */
  get failed(): boolean {
    return this.#failure !== undefined;
  }

  /**
   * Answers when a commit that began after this call is done; throws what that one threw, or one
   * before it that stays.
   */
  run(): Promise<void> {
    if (this.#next !== undefined) return this.#next;
    if (this.#running !== undefined) return this.#next = this.#runAfter(this.#running);
    return this.#running = this.#runNow();
  }

  async #runAfter(running: Promise<void>): Promise<void> {
    await running.catch(() => {});
    this.#next = undefined;
    await (this.#running = this.#runNow());
  }

  async #runNow(): Promise<void> {
    // Leaves #running to its assignment, also where the commit is not even begun.
    await Promise.resolve();
    try {
      if (this.#failure === undefined) await this.#commit();
    } catch (error) {
      if (this.#retries) throw error;
      this.#failure = { error };
    } finally {
      this.#running = undefined;
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
