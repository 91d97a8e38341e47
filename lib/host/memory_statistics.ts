/**
 * What is counted of memory that is paged in, of one handler or of several together.
 *
 * @module
 */
import type { Traffic } from "../backend/backend.ts";
import type { UserfaultStatistics } from "../userfault/statistics.ts";

/** What is known of memory that is paged in. */
export interface MemoryStatistics extends UserfaultStatistics {
  /** Whether some thread waits for a page. */
  owes: boolean;
  /** What crossed the network for the backend, where that counts it. */
  wire: Traffic | undefined;
}

/** The counts of two handlers together. */
export function sum(one: MemoryStatistics, other: MemoryStatistics): MemoryStatistics {
  return {
    faults: one.faults + other.faults,
    writeFaults: one.writeFaults + other.writeFaults,
    lateFaults: one.lateFaults + other.lateFaults,
    copiedPages: one.copiedPages + other.copiedPages,
    zeroPages: one.zeroPages + other.zeroPages,
    readBytes: one.readBytes + other.readBytes,
    prefetchedBytes: one.prefetchedBytes + other.prefetchedBytes,
    pushedBytes: one.pushedBytes + other.pushedBytes,
    failedReads: one.failedReads + other.failedReads,
    owes: one.owes || other.owes,
    wire: one.wire && other.wire && {
      sentBytes: one.wire.sentBytes + other.wire.sentBytes,
      receivedBytes: one.wire.receivedBytes + other.wire.receivedBytes,
    },
  };
}
