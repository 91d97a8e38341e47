/**
 * Takes regions over in tests, where suspending is given so little time that faults come upon it.
 *
 * @module
 */
import { TelemapError } from "../../mod.ts";

/** A host on which suspending takes longer than so many ms fails the test. */
const SUSPEND_MOST_MS = 16_000;

/**
 * Takes over; where suspending takes longer, as when the disk of a host is busy for seconds, again
 * with twice the time.
 */
export async function finalizeInTime<T>(
  suspendMs: number,
  finalize: (suspendMs: number) => Promise<T>,
): Promise<T> {
  for (;; suspendMs *= 2) {
    try {
      return await finalize(suspendMs);
    } catch (error) {
      const isLate = error instanceof TelemapError && error.code === "ETIMEDOUT";
      if (!isLate || suspendMs >= SUSPEND_MOST_MS) throw error;
    }
  }
}
