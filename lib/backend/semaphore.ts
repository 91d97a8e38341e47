/**
 * Lets a limited number of operations be under way at a time; the others wait in line.
 *
 * @module
 */

/** A number of permits, handed out first come, first served. */
export class Semaphore {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  /** Makes a semaphore with so many permits, over 0. */
  constructor(permits: number) {
    this.#free = permits;
  }

  /** Runs `work` as soon as a permit can be had, and gives that back after it. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }
}
