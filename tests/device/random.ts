/**
 * Numbers at random that follow from a seed, so that a test can be run again as it was.
 *
 * @module
 */

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
