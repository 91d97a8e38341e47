/**
 * A stand-in for the part of @std/cli/unstable-progress-bar that this project uses: a bar whose
 * line the caller formats.
 *
 * @module
 */

/** What the formatter of a {@linkcode ProgressBar} is given at each update. */
export interface ProgressBarFormatter {
  /** Time since the start as `mm:ss`. */
  styledTime: string;
  /** The bar, e.g. `###-------`. */
  progressBar: string;
  /** Ms since the start. */
  time: number;
  /** {@linkcode time} at the last update. */
  previousTime: number;
  /** How much is done. */
  value: number;
  /** {@linkcode value} at the last update. */
  previousValue: number;
  /** How much there is to do. */
  max: number;
}

/** The options of a {@linkcode ProgressBar}. */
export interface ProgressBarOptions {
  /** Where the bar is written. */
  writable?: WritableStream<Uint8Array>;
  /** How much is done at the start. */
  value?: number;
  /** How much there is to do. */
  max: number;
  /** Characters of the bar. */
  barLength?: number;
  /** Makes the line out of its parts. */
  formatter?: (formatter: ProgressBarFormatter) => string;
  /** Whether the line is removed at the end. */
  clear?: boolean;
  /** Ms between two updates. */
  interval?: number;
}

const LINE_CLEAR = "\r\x1b[K";

/** A line that shows how much of something is done, updated until {@linkcode stop}. */
export class ProgressBar {
  /** How much is done. */
  value: number;
  /** How much there is to do. */
  max: number;

  readonly #barLength: number;
  readonly #formatter: (formatter: ProgressBarFormatter) => string;
  readonly #clear: boolean;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #started = Date.now();
  readonly #timer: ReturnType<typeof setInterval>;
  #previousTime = 0;
  #previousValue: number;

  /** Shows the bar. */
  constructor(options: ProgressBarOptions) {
    this.value = options.value ?? 0;
    this.max = options.max;
    this.#previousValue = this.value;
    this.#barLength = options.barLength ?? 50;
    this.#formatter = options.formatter ??
      ((parts) => `[${parts.styledTime}] [${parts.progressBar}]`);
    this.#clear = options.clear ?? false;
    this.#writer = (options.writable ?? Deno.stderr.writable).getWriter();
    this.#timer = setInterval(() => void this.#print(), options.interval ?? 1000);
    void this.#print();
  }

  /** Shows the last state, or removes the line, and lets go of the stream. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    if (this.#clear) await this.#write(LINE_CLEAR);
    else {
      await this.#print();
      await this.#write("\n");
    }
    this.#writer.releaseLock();
  }

  async #print(): Promise<void> {
    const time = Date.now() - this.#started;
    const seconds = Math.floor(time / 1000);
    const ratio = Math.min(Math.max(this.value / this.max, 0), 1);
    const filled = Math.trunc(ratio * this.#barLength);
    const parts: ProgressBarFormatter = {
      styledTime: [Math.floor(seconds / 60), seconds % 60]
        .map((part) => `${part}`.padStart(2, "0")).join(":"),
      progressBar: "#".repeat(filled) + "-".repeat(this.#barLength - filled),
      time,
      previousTime: this.#previousTime,
      value: this.value,
      previousValue: this.#previousValue,
      max: this.max,
    };
    const { value } = this;
    await this.#write(LINE_CLEAR + this.#formatter(parts));
    this.#previousTime = time;
    this.#previousValue = value;
  }

  async #write(text: string): Promise<void> {
    try {
      await this.#writer.write(new TextEncoder().encode(text));
    } catch {
      clearInterval(this.#timer);
    }
  }
}
