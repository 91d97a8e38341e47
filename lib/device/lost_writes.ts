/**
 * What a device says when it goes and something that was written to it did not reach the backend.
 *
 * @module
 */
import { DeadlineError, IntegrityError, type TelemapError } from "../backend/errors.ts";

/** How long dirty pages may take to reach the backend when a device is detached, in ms. */
export const FLUSH_MS = 30_000;

/** The error for a device at `path`: flushing it took too long, or else failed. */
export function lostWrites(path: string, late: boolean): TelemapError {
  if (late) {
    return new DeadlineError(`Cannot write ${path} back within ${FLUSH_MS / 1000} s`, {
      hint: "what was not synced is lost; see that the backend can be reached",
    });
  }
  return new IntegrityError(`Cannot write ${path} back: fsync failed`, {
    hint: "the backend refused part of it, which is lost",
  });
}
