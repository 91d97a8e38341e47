/**
 * Shows how far a copy is, on standard error: a bar, the rate and the time that is left.
 *
 * @module
 */
import { ProgressBar, type ProgressBarFormatter } from "@std/cli/unstable-progress-bar";
import type { CopyProgress } from "../lib/host/copy.ts";

/** Ms between updates. */
const INTERVAL = 200;

/** A bar that fills once for the copying, and again for the verification. */
export class CopyProgressBar implements AsyncDisposable {
  readonly #bar: ProgressBar;
  #phase: CopyProgress["phase"] = "copy";
  #phaseStarted = 0;

  /** Shows the bar of a copy of `total` bytes. */
  constructor(total: number) {
    this.#bar = new ProgressBar({
      max: total,
      barLength: 30,
      interval: INTERVAL,
      formatter: (parts) => progressLine(this.#phase, this.#timed(parts)),
    });
  }

  /** Takes over how far the copy is; the bar is drawn a few times a second. */
  show({ phase, done }: CopyProgress): void {
    if (phase !== this.#phase) {
      this.#phase = phase;
      this.#phaseStarted = Number.NaN;
    }
    this.#bar.value = done;
  }

  /** Draws the last state and ends the line. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#bar.stop();
  }

  /** The parts with the time since the phase began, as far as the bar has seen. */
  #timed(parts: ProgressBarFormatter): ProgressBarFormatter {
    if (Number.isNaN(this.#phaseStarted)) this.#phaseStarted = parts.previousTime;
    return { ...parts, time: parts.time - this.#phaseStarted };
  }
}

/** The line for a state, e.g. `copy   [###---]  50%  512 MiB/s  00:03 left`. */
export function progressLine(
  phase: CopyProgress["phase"],
  { progressBar, value, max, time }: Pick<
    ProgressBarFormatter,
    "progressBar" | "value" | "max" | "time"
  >,
): string {
  const percent = `${Math.floor(value / max * 100)}%`.padStart(4);
  const rate = time > 0 ? value / (time / 1000) : 0;
  const left = rate > 0 ? Math.ceil((max - value) / rate) : undefined;
  const mebibytes = `${(rate / 2 ** 20).toFixed(rate < 10 * 2 ** 20 ? 1 : 0)} MiB/s`;
  return `${phase.padEnd(6)} [${progressBar}] ${percent}  ${mebibytes}  ${clock(left)} left`;
}

function clock(seconds: number | undefined): string {
  if (seconds === undefined) return "--:--";
  const parts = [Math.floor(seconds / 60) % 60, seconds % 60];
  if (seconds >= 3600) parts.unshift(Math.floor(seconds / 3600));
  return parts.map((part) => `${part}`.padStart(2, "0")).join(":");
}
