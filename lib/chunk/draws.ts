/**
 * Random numbers that can be drawn in any order: each follows from a seed, a purpose and an index.
 *
 * @module
 */
import { mix } from "../backend/mix.ts";

/** The numbers of one seed for one purpose. */
export class Draws {
  readonly #key: number;

  /** Those of a seed, a safe integer from 0. Other purposes have other numbers. */
  constructor(seed: number, purpose: string) {
    let key = mix(mix(seed | 0) + Math.floor(seed / 2 ** 32));
    for (let at = 0; at < purpose.length; at++) key = mix(key ^ purpose.charCodeAt(at));
    this.#key = key;
  }

  /** Number `index` (from 0), at least 0 and less than 1. */
  at(index: number): number {
    return (mix(mix(index ^ this.#key) + this.#key) >>> 0) / 2 ** 32;
  }
}
