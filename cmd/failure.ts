/**
 * How the command line tells of an error: one line on standard error, and an exit code.
 *
 * @module
 */
import { UsageError } from "../lib/backend/errors.ts";

/** Prints the error; the stack too where TELEMAP_DEBUG is set. Answers the exit code, 1 or 2. */
export function reportFailure(error: unknown): number {
  // A disposal that failed behind an error: what came first is what matters.
  while (error instanceof SuppressedError) error = error.suppressed;
  const message = error instanceof Error ? error.message : String(error);
  console.error(`telemap: ${message.replace(/\s*\n\s*/g, " ")}`);
  if (Deno.env.get("TELEMAP_DEBUG")) console.error(error);
  return error instanceof UsageError ? 2 : 1;
}
