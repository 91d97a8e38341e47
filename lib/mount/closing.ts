/**
 * The closing of something that has devices: it happens once, and again only where it could not be.
 *
 * @module
 */
import { errorCode } from "../backend/errors.ts";

/** See the module. */
export class Closing {
  readonly #close: () => Promise<void>;
  #under: Promise<void> | undefined;

  /** Closes by that. */
  constructor(close: () => Promise<void>) {
    this.#close = close;
  }

  /** Whether it is closed, or about to be. */
  get begun(): boolean {
    return this.#under !== undefined;
  }

  /** Closes, or waits for the same; tries again where a device was in use (EBUSY) before. */
  run(): Promise<void> {
    return this.#under ??= this.#once();
  }

  async #once(): Promise<void> {
    try {
      await this.#close();
    } catch (error) {
      if (errorCode(error) === "EBUSY") this.#under = undefined;
      throw error;
    }
  }
}
