/**
 * A region of made-up bytes that every reader can make up again: what lies at an offset follows
 * from the offset and a seed alone.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { type Backend, checkRange } from "./backend.ts";
import { ClosedError, ReadOnlyError, UsageError } from "./errors.ts";
import { mix } from "./mix.ts";

/** Words of 8 bytes after which a pattern repeats itself: a prime, 2^17 - 1. */
const PERIOD_WORDS = 131_071;

/** The same in bytes. */
const PERIOD = PERIOD_WORDS * 8;

/**
 * The pattern of a seed.
 *
 * The 8 bytes at a multiple of 8 are a random word, chosen by the seed, of a period of 2^17 - 1
 * words. Blocks whose size is a power of two hold the same bytes only where they are a multiple of
 * 2^17 - 1 blocks apart, so that bytes in a wrong place show. As it is a period, a range is made by
 * copying; as it is as long as 1 MiB, compressors find nothing in it.
 */
export class Pattern {
  readonly #period: Buffer;

  /** Makes the pattern of a seed, which is a safe integer from 0; else throws {@linkcode UsageError}. */
  constructor(seed = 0) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new UsageError(`Cannot make a pattern of the seed ${seed}`, {
        hint: `give it a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`,
      });
    }
    this.#period = Buffer.from(randomWords(seed).buffer);
  }

  /** Fills a buffer with what lies at `offset`, a safe integer from 0. */
  fill(buffer: Uint8Array, offset: number): void {
    let from = offset % PERIOD;
    for (let done = 0; done < buffer.length; from = 0) {
      const count = Math.min(buffer.length - done, PERIOD - from);
      buffer.set(this.#period.subarray(from, from + count), done);
      done += count;
    }
  }

  /** The index of the first byte of a buffer that does not belong at `offset`, or -1. */
  findDifference(buffer: Uint8Array, offset: number): number {
    let from = offset % PERIOD;
    for (let done = 0; done < buffer.length; from = 0) {
      const count = Math.min(buffer.length - done, PERIOD - from);
      const expected = this.#period.subarray(from, from + count);
      const found = buffer.subarray(done, done + count);
      if (expected.compare(found) !== 0) {
        return done + found.findIndex((byte, index) => byte !== expected[index]);
      }
      done += count;
    }
    return -1;
  }
}

/** One period, as halves of words. */
function randomWords(seed: number): Uint32Array<ArrayBuffer> {
  const low = seed | 0, high = Math.floor(seed / 2 ** 32);
  // Two keys: with one, the words of some seeds would be those of others in another order.
  const first = mix(mix(low) ^ high), second = mix(first + 0x9e3779b9 ^ low);
  const halves = new Uint32Array(PERIOD_WORDS * 2);
  for (let index = 0; index < halves.length; index++) {
    halves[index] = mix(mix(index ^ first) + second);
  }
  return halves;
}

/** How {@linkcode openPattern} opens. */
export interface OpenPatternOptions {
  /** Bytes of the region, over 0. */
  size: number;
  /** Which pattern it shows; 0 unless told. */
  seed?: number;
}

/**
 * Opens a read-only region that shows a {@linkcode Pattern} from its beginning. Throws
 * {@linkcode UsageError} on a size that is no count of bytes over 0, and on a seed that is none.
 */
export function openPattern(options: OpenPatternOptions): PatternBackend {
  const { size, seed } = options;
  if (!Number.isSafeInteger(size) || size <= 0) {
    throw new UsageError(`Cannot open a pattern of ${size} bytes`, {
      hint: "give it a whole number of bytes over 0",
    });
  }
  return new PatternBackend(size, new Pattern(seed));
}

/** A region that shows a pattern. Every method answers at once. */
export class PatternBackend implements Backend {
  readonly size: number;
  readonly blockSize = 1;
  /** There is nothing that a loss of power could change. */
  readonly durable = true;
  readonly readOnly = true;
  readonly writesAtOnce = true;
  readonly restsBetweenCalls = true;
  readonly #pattern: Pattern;
  #closed = false;

  /** Made by {@linkcode openPattern}. */
  constructor(size: number, pattern: Pattern) {
    this.size = size;
    this.#pattern = pattern;
  }

  readAt(buffer: Uint8Array, offset: number): void {
    this.#check(offset, buffer.length);
    this.#pattern.fill(buffer, offset);
  }

  /** Throws. */
  writeAt(buffer: Uint8Array, offset: number): void {
    this.#check(offset, buffer.length);
    throw new ReadOnlyError();
  }

  /** Does nothing. */
  flush(): void {
    this.#checkOpen();
  }

  close(): void {
    this.#closed = true;
  }

  /** As {@linkcode close}. */
  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  #check(offset: number, length: number): void {
    this.#checkOpen();
    checkRange(this.size, offset, length);
  }

  #checkOpen(): void {
    if (this.#closed) throw new ClosedError("Cannot use the pattern as it was closed");
  }
}
