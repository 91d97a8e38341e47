/**
 * Lines for people about calls of a backend that failed, where whoever made them sees no more than
 * EIO.
 *
 * @module
 */

/** How often failures that go on are told of, in ms. */
const AGAIN_MS = 10_000;

/** The lines of one server, few however many calls fail. */
export class FailureLog {
  readonly #what: string;
  readonly #log: (line: string) => void;
  #toldAt = -Infinity;
  #untold = 0;

  /** `what` is what fails, such as `Cannot serve the mounted file`. */
  constructor(what: string, log: (line: string) => void = (line) => console.warn(line)) {
    this.#what = what;
    this.#log = log;
  }

  /** A call failed with `error`. */
  failed(error: unknown): void {
    const now = performance.now();
    if (now - this.#toldAt < AGAIN_MS) return void this.#untold++;
    this.#toldAt = now;
    const why = error instanceof Error ? error.message : `${error}`;
    const more = this.#untold === 0 ? "" : ` (and ${this.#untold} times since the last line)`;
    this.#untold = 0;
    this.#log(`${this.#what}: ${why}${more}`);
  }
}
