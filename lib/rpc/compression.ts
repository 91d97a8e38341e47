/**
 * zstd of contents, and the choice whether it pays. The choice is the client's for both
 * directions, as the client sees what counts: how fast contents arrive, compressed or not.
 *
 * @module
 */
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";

/** When contents are compressed. */
export type CompressionMode = "auto" | "off" | "always";

/** Contents below this many bytes are never compressed: a frame of zstd would cost more than it saves. */
export const COMPRESSIBLE_BYTES = 4096;

const LEVEL = 1;
/** log2 of the largest window that is decoded: that of the largest payload. */
const WINDOW_LOG = 22;
const COMPRESS = { params: { [constants.ZSTD_c_compressionLevel]: LEVEL } };
const DECODE_PARAMS = { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG };

/** The content as a zstd frame; `undefined` where that saves less than an eighth. */
export function compress(content: Uint8Array): Uint8Array | undefined {
  if (content.length < COMPRESSIBLE_BYTES) return undefined;
  const packed = zstdCompressSync(content, COMPRESS);
  return packed.length <= content.length - (content.length >>> 3) ? packed : undefined;
}

/** The content of a zstd frame, `length` bytes; `undefined` where it is damaged or has another size. */
export function decompress(packed: Uint8Array, length: number): Uint8Array | undefined {
  try {
    const options = { params: DECODE_PARAMS, maxOutputLength: length };
    const content = zstdDecompressSync(packed, options);
    return content.length === length ? content : undefined;
  } catch {
    return undefined;
  }
}

/** A rate at which level 1 cannot keep up: 400 MB/s, in ms a byte. */
const FAST = 1 / 400e3;
/** How much faster compressed contents must arrive: what they cost the processors is not seen here. */
const GAIN = 0.9;
/** The weight of the newest observation in the average of the way that is in use. */
const WEIGHT = 0.25;
/** Contents between two tries of the way that is not chosen: at first, and when it lost often. */
const TRY_FIRST = 16, TRY_LAST = 256;

/**
 * Chooses for one direction of one lane, by what was observed: what a byte costs in ms, compressed
 * and not. The way in use counts by its average, the other by its last try, which comes now and
 * then, the less the oftener it lost. A link that is faster than zstd is left alone.
 */
export class CompressionChoice {
  readonly #mode: CompressionMode;
  #plainCost: number | undefined;
  #packedCost: number | undefined;
  #packing = false;
  #sinceTry = 0;
  #tryInterval = TRY_FIRST;
  #triedOnce = false;

  /** Begins without compression where the choice is free. */
  constructor(mode: CompressionMode) {
    this.#mode = mode;
  }

  /** Whether the next content, of `length` bytes, is to be compressed. */
  choose(length: number): boolean {
    if (this.#mode !== "auto" || length < COMPRESSIBLE_BYTES) {
      return this.#mode === "always" && length >= COMPRESSIBLE_BYTES;
    }
    if (this.#plainCost === undefined || this.#plainCost < FAST) return false;
    if (++this.#sinceTry < this.#tryInterval) return this.#packing;
    this.#sinceTry = 0;
    return !this.#packing;
  }

  /** A content of `length` bytes took `milliseconds` of the lane's time, compressed or not. */
  observe(packed: boolean, length: number, milliseconds: number): void {
    if (this.#mode !== "auto" || length < COMPRESSIBLE_BYTES) return;
    if (packed && !this.#triedOnce) {
      // It paid for zstd's start in the processes of both sides: the next content is the try.
      this.#triedOnce = true;
      this.#sinceTry = this.#tryInterval;
      return;
    }
    const inUse = packed === this.#packing;
    const before = packed ? this.#packedCost : this.#plainCost;
    const cost = milliseconds / length;
    const known = inUse && before !== undefined ? before + (cost - before) * WEIGHT : cost;
    if (packed) this.#packedCost = known;
    else this.#plainCost = known;
    if (!inUse) this.#compare();
  }

  /** After a try of the other way: change over to it, or try it less often. */
  #compare(): void {
    if (this.#plainCost === undefined || this.#packedCost === undefined) return;
    const pays = this.#packedCost < this.#plainCost * GAIN;
    if (pays === this.#packing) {
      this.#tryInterval = Math.min(this.#tryInterval * 2, TRY_LAST);
    } else {
      this.#packing = pays;
      this.#tryInterval = TRY_FIRST;
    }
  }
}
