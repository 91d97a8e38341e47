/**
 * Where the memory that a userfaultfd pages in lies, and which bytes of a backend belong to it.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";

/** A run of memory that is paged in from a run of a backend. */
export interface MemoryRegion {
  /** Its first byte, where its process has it. */
  address: number;
  /** Bytes, a multiple of `pageSize`. */
  size: number;
  /** Where its content begins in the backend; what lies beyond the backend's end is zeroes. */
  offset: number;
  /** Bytes of a page of it, a power of two: that of the kernel, or of huge pages. */
  pageSize: number;
}

/** Regions that one userfaultfd may have. */
export const REGIONS_MAX = 1024;
/** A page is read in one piece: larger ones have no buffer in a `SlotPool`. */
const PAGE_SIZE_MAX = 64 << 20;
const ADDRESS_MAX = 2 ** 56;

/**
 * The regions by ascending address.
 *
 * @throws {UsageError} there are none or too many, one is not whole pages, begins beyond the end of
 * the backend, or overlaps another one.
 */
export function checkedLayout(
  regions: readonly MemoryRegion[],
  backendSize: number,
): MemoryRegion[] {
  if (regions.length === 0 || regions.length > REGIONS_MAX) {
    throw new UsageError(
      `Cannot page ${regions.length} regions of memory in: from 1 to ${REGIONS_MAX}`,
    );
  }
  const sorted = [...regions].sort((one, other) => one.address - other.address);
  sorted.forEach((region, index) => {
    checkRegion(region, backendSize);
    const before = sorted[index - 1];
    if (before !== undefined && before.address + before.size > region.address) {
      throw new UsageError(`Cannot page memory in that is told of twice: ${nameOf(region)}`);
    }
  });
  return sorted;
}

function checkRegion(region: MemoryRegion, backendSize: number): void {
  const { address, size, offset, pageSize } = region;
  const pages = Number.isInteger(Math.log2(pageSize)) && pageSize >= 4096 &&
    pageSize <= PAGE_SIZE_MAX;
  if (!pages) throw new UsageError(`Cannot page memory in by pages of ${pageSize} bytes`);
  const whole = [address, size].every((value) =>
    Number.isSafeInteger(value) && value > 0 && value % pageSize === 0
  );
  if (!whole || address + size > ADDRESS_MAX) {
    throw new UsageError(`Cannot page ${nameOf(region)} in: it is not whole pages of ${pageSize}`);
  }
  if (!(Number.isSafeInteger(offset) && offset >= 0 && offset < backendSize)) {
    throw new UsageError(
      `Cannot page ${nameOf(region)} in from offset ${offset} of a backend of ${backendSize} bytes`,
    );
  }
}

function nameOf({ address, size }: MemoryRegion): string {
  return `${size} bytes of memory at 0x${address.toString(16)}`;
}
