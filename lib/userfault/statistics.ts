/**
 * What a userfaultfd server counts.
 *
 * @module
 */

/** Counts since a region was mounted. */
export interface UserfaultStatistics {
  /** Faults of pages that were missing. */
  faults: number;
  /** Faults of writes to pages that were protected, where the kernel tells of them. */
  writeFaults: number;
  /** Faults of pages that somebody had put in place meanwhile. */
  lateFaults: number;
  /** Pages put in place with bytes of the backend. */
  copiedPages: number;
  /** Pages put in place as zeroes, which took no memory. */
  zeroPages: number;
  /** Bytes asked of the backend. */
  readBytes: number;
  /** Of these, bytes that were asked for ahead of a fault. */
  prefetchedBytes: number;
  /** Bytes of dirty pages that were pushed to the backend. */
  pushedBytes: number;
  /** Reads of the backend that failed. */
  failedReads: number;
}

/** Counts of which nothing has happened yet. */
export function noStatistics(): UserfaultStatistics {
  return {
    faults: 0,
    writeFaults: 0,
    lateFaults: 0,
    copiedPages: 0,
    zeroPages: 0,
    readBytes: 0,
    prefetchedBytes: 0,
    pushedBytes: 0,
    failedReads: 0,
  };
}
