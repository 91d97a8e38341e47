/**
 * Lets the operations of a `ScheduledBackend` go on when a test says so, and notes which there were.
 *
 * @module
 */

/** See the module. Open in the beginning. */
export class Gate {
  /** What operations were begun, as `read 0+4096`, in order. */
  readonly log: string[] = [];
  /** Most operations that were under way at a time. */
  most = 0;
  #underWay = 0;
  #held: RegExp | undefined;
  readonly #waiting: { name: string; goOn: () => void }[] = [];
  #changed = Promise.withResolvers<void>();

  /** For `ScheduledOptions.step`. */
  readonly step = (name: string): Promise<void> => {
    if (name.endsWith(" answered")) {
      this.#underWay--;
      return Promise.resolve();
    }
    this.log.push(name);
    this.most = Math.max(this.most, ++this.#underWay);
    if (!this.#held?.test(name)) return Promise.resolve();
    return new Promise((goOn) => {
      this.#waiting.push({ name, goOn });
      this.#changed.resolve();
      this.#changed = Promise.withResolvers();
    });
  };

  /** Operations that wait. */
  get waiting(): string[] {
    return this.#waiting.map(({ name }) => name);
  }

  /** Answers once so many operations wait. */
  async held(count: number): Promise<void> {
    while (this.#waiting.length < count) await this.#changed.promise;
  }

  /** Holds operations up from now on. */
  hold(names: RegExp = /./): void {
    this.#held = names;
  }

  /** Lets those go on that wait now. */
  pass(names: RegExp = /./): void {
    for (const { name, goOn } of this.#waiting.splice(0)) {
      if (names.test(name)) goOn();
      else this.#waiting.push({ name, goOn });
    }
  }

  /** Holds nothing up any more. */
  open(): void {
    this.#held = undefined;
    this.pass();
  }
}

/** Lets everything that can go on without a timer of more than a moment do so. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setTimeout(resolve, 0));
}
