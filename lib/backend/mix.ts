/**
 * Scrambles 32 bits, for random numbers that follow from where they are used.
 *
 * @module
 */

/** A bijection of 32 bits in which each bit depends on all (lowbias32 of the Hash Prospector). */
export function mix(bits: number): number {
  bits = Math.imul(bits ^ bits >>> 16, 0x7feb352d);
  bits = Math.imul(bits ^ bits >>> 15, 0x846ca68b);
  return bits ^ bits >>> 16;
}
