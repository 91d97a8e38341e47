/**
 * A program at the source whose writes are slowed for a while, as a leecher does not keep up with it.
 *
 * @module
 */
import type { SlowStage } from "../chunk/slow.ts";
import type { SeededProgram } from "./seeder_core.ts";

/** What slowing may last at a time, in ms: whoever asked for it may be gone. */
const SLOWED_MOST_MS = 60_000;

/** See the module. */
export class SlowedProgram {
  readonly #slow: SlowStage;
  readonly #program: Pick<SeededProgram, "flush" | "throttle">;
  #rate = Infinity;
  #by: string | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Writes as it likes. */
  constructor(slow: SlowStage, program: Pick<SeededProgram, "flush" | "throttle">) {
    this.#slow = slow;
    this.#program = program;
  }

  /** A leecher has it write no more than so many bytes a second, for so many ms. */
  async slow(leech: string, rate: number, milliseconds: number): Promise<void> {
    clearTimeout(this.#timer);
    this.#by = leech;
    this.#timer = setTimeout(() => void this.end(), Math.min(milliseconds, SLOWED_MOST_MS));
    await this.#limit(rate);
  }

  /** One who goes away, or gives up, leaves the program as slow as another one wants it. */
  async endFor(leech: string): Promise<void> {
    if (this.#by === leech) await this.end();
  }

  /** It may write as it likes again. */
  async end(): Promise<void> {
    clearTimeout(this.#timer);
    this.#by = undefined;
    if (this.#rate < Infinity) await this.#limit(Infinity);
  }

  /** Nobody is to wait for what comes from the kernel's own caches then. */
  async flush(): Promise<void> {
    const isSlow = this.#rate < Infinity;
    if (isSlow) this.#slow.slow(Infinity);
    try {
      await this.#program.flush();
    } finally {
      if (isSlow) this.#slow.slow(this.#rate);
    }
  }

  /** Ends what goes by time. */
  close(): void {
    clearTimeout(this.#timer);
  }

  async #limit(rate: number): Promise<void> {
    this.#rate = rate;
    this.#slow.slow(rate);
    try {
      await this.#program.throttle(rate);
    } catch (error) {
      console.warn(`Cannot have the program write more slowly: ${(error as Error).message}`);
    }
  }
}
