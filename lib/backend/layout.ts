/**
 * Where things lie that are laid end to end in one region, each from the next multiple of an
 * alignment. Pure.
 *
 * @module
 */
import { UsageError } from "./errors.ts";

/** Where they lie. */
export interface Layout {
  /** The first byte of each, in their order. */
  readonly offsets: readonly number[];
  /** Bytes of the region: it ends with the last of them. */
  readonly size: number;
}

/**
 * Lays out things of so many bytes.
 *
 * @throws {UsageError} there is nothing to lay out, something has no bytes, the alignment is none, or
 * all of it is longer than a region can be.
 */
export function layOut(sizes: readonly number[], alignment: number): Layout {
  checkCount(alignment, "an alignment");
  if (sizes.length === 0) throw new UsageError("Cannot make a region of no parts");
  const offsets: number[] = [];
  let size = 0;
  for (const length of sizes) {
    checkCount(length, "a part");
    const offset = Math.ceil(size / alignment) * alignment;
    offsets.push(offset);
    size = offset + length;
    if (!Number.isSafeInteger(size)) {
      throw new UsageError("Cannot make a region of parts that have over 2^53 - 1 bytes together");
    }
  }
  return { offsets, size };
}

function checkCount(bytes: number, what: string): void {
  if (Number.isSafeInteger(bytes) && bytes > 0) return;
  throw new UsageError(`Cannot make a region with ${what} of ${bytes} bytes`, {
    hint: "give it a whole number of bytes over 0",
  });
}
