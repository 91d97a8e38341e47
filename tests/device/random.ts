/**
 * Numbers at random that follow from a seed, so that a test can be run again as it was.
 *
 * @module
 */
import { inTime } from "../in_time.ts";

/** A run that is not over by then hangs, in ms: it fails, so that those behind it run. */
const HANGS_AFTER_MS = 600_000;

/**
 * Runs as often as told, each time with the next seed; `TELEMAP_SEED` is the first. Seeds are printed,
 * with what a run answers, and what a run throws names its own, so that it can be found where a report
 * holds nothing but errors.
 */
export async function runSeeds(
  runs: number,
  run: (seed: number) => Promise<string>,
): Promise<void> {
  const first = Number(
    Deno.env.get("TELEMAP_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0],
  );
  console.log(`seed ${first}`);
  for (let seed = first; seed < first + runs; seed++) {
    try {
      console.log(`seed ${seed}: ${await inTime(run(seed), HANGS_AFTER_MS)}`);
    } catch (error) {
      throw new Error(`TELEMAP_SEED=${seed}`, { cause: error });
    }
  }
}

/** xorshift32: values in `[0, limit)` that follow from the seed. */
export function makeRandom(seed: number): (limit: number) => number {
  let state = seed | 1;
  return (limit) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
}
