/**
 * Lines for people about content that cannot be had: whoever waits for it sees nothing of why.
 *
 * @module
 */

/** How often something that goes on is told again, in ms. */
const AGAIN_MS = 10_000;

/** The lines about one region, few however many reads fail. */
export class LossLog {
  readonly #log: (line: string) => void;
  #told = -Infinity;
  #failing = false;

  /** Tells by `log`. */
  constructor(log: (line: string) => void) {
    this.#log = log;
  }

  /** A read at an offset of the backend failed. */
  failed(offset: number, error: unknown): void {
    const now = performance.now();
    this.#failing = true;
    if (now - this.#told < AGAIN_MS) return;
    this.#told = now;
    const why = error instanceof Error ? error.message : `${error}`;
    this.#log(`Cannot page in what lies at offset ${offset} of the region: ${why}`);
  }

  /** What had failed was read after all. */
  recovered(): void {
    if (!this.#failing) return;
    this.#failing = false;
    this.#told = -Infinity;
    this.#log("Paging in goes on");
  }
}
