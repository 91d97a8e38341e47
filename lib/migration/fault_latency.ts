/**
 * How long accesses waited, as a histogram of 4 bins an octave: quantiles are right within a fifth.
 * Pure, and of a fixed size.
 *
 * @module
 */
import type { FaultLatency } from "./migration_metrics.ts";

/** Bins an octave. */
const PARTS = 4;
/** The shortest time that is told from none, in ms, and octaves above it. */
const LEAST_MS = 2 ** -10, OCTAVES = 30;

/** See the module. */
export class LatencyHistogram {
  readonly #bins = new Float64Array(OCTAVES * PARTS + 1);
  #count = 0;

  /** One took so many ms. */
  add(milliseconds: number): void {
    const bin = Math.ceil(Math.log2(milliseconds / LEAST_MS) * PARTS);
    this.#bins[Math.min(Math.max(bin, 0), this.#bins.length - 1)]!++;
    this.#count++;
  }

  /** All of them. */
  get latency(): FaultLatency {
    return { count: this.#count, p50Ms: this.#quantile(0.5), p99Ms: this.#quantile(0.99) };
  }

  /** The upper end of the bin in which a share of all comes to its end; 0 for none. */
  #quantile(share: number): number {
    if (this.#count === 0) return 0;
    let bin = 0;
    for (let seen = this.#bins[0]!; seen < share * this.#count;) seen += this.#bins[++bin]!;
    return LEAST_MS * 2 ** (bin / PARTS);
  }
}
