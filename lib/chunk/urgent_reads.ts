/**
 * Counts reads that somebody waits for, so that work in the background can give way to them.
 *
 * @module
 */

/** See the module. */
export class UrgentReads {
  #count = 0;
  readonly #waiting = new Set<() => void>();

  /** How many are under way. */
  get count(): number {
    return this.#count;
  }

  /** One begins. */
  begin(): void {
    this.#count++;
  }

  /** One is over. */
  end(): void {
    if (--this.#count > 0) return;
    for (const goOn of this.#waiting) goOn();
    this.#waiting.clear();
  }

  /** Answers when none is under way, or after so many milliseconds. */
  calm(milliseconds: number): Promise<void> {
    if (this.#count === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const goOn = () => {
        clearTimeout(timer);
        this.#waiting.delete(goOn);
        resolve();
      };
      const timer = setTimeout(goOn, milliseconds);
      this.#waiting.add(goOn);
    });
  }
}
