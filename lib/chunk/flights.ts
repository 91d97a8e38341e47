/**
 * Requests in flight: how many bytes there are, when one lands, and what went wrong.
 *
 * @module
 */

/** See the module. */
export class Flights {
  #count = 0;
  #bytes = 0;
  #failure: { error: unknown } | undefined;
  #landing: PromiseWithResolvers<void> | undefined;

  /** Requests in flight. */
  get count(): number {
    return this.#count;
  }

  /** Bytes that they carry. */
  get bytes(): number {
    return this.#bytes;
  }

  /** What went wrong first. */
  get failure(): { error: unknown } | undefined {
    return this.#failure;
  }

  /** Counts a request until its promise is settled. */
  add(request: Promise<void>, bytes: number): void {
    this.#count++;
    this.#bytes += bytes;
    request.catch((error) => void (this.#failure ??= { error })).then(() => {
      this.#count--;
      this.#bytes -= bytes;
      this.#land();
    });
  }

  /** Answers when the next one lands; there must be one. */
  landing(): Promise<void> {
    return (this.#landing ??= Promise.withResolvers()).promise;
  }

  /** Answers when the next one lands, and after so many milliseconds at the latest. */
  async landingWithin(milliseconds: number): Promise<void> {
    const landing = this.landing();
    const timer = setTimeout(() => this.#land(), milliseconds);
    await landing;
    clearTimeout(timer);
  }

  /** Answers when none is in flight any more. */
  async landed(): Promise<void> {
    while (this.#count > 0) await this.landing();
  }

  #land(): void {
    this.#landing?.resolve();
    this.#landing = undefined;
  }
}
