/**
 * Times as people write them: `25ms`, `1.5s`, `500us`.
 *
 * @module
 */
import { UsageError } from "./errors.ts";

/** Milliseconds of each unit. */
const UNITS: ReadonlyMap<string, number> = new Map([
  ["us", 0.001],
  ["ms", 1],
  ["s", 1000],
  ["min", 60_000],
  ["h", 3_600_000],
]);

/**
 * Milliseconds of a time such as `25ms`, `1.5s`, `500us`, `2min`, `1h` or `0`. Throws
 * {@linkcode UsageError} for any other text.
 */
export function parseDuration(text: string): number {
  const match = /^([0-9]{1,15}(?:\.[0-9]{1,15})?)(us|ms|s|min|h)$/.exec(text);
  if (match !== null) return Number(match[1]) * UNITS.get(match[2]!)!;
  if (text === "0") return 0;
  throw new UsageError(`Cannot read ${JSON.stringify(text)} as a time`, {
    hint: "write a number with us, ms, s, min or h, such as 25ms or 1.5s",
  });
}
