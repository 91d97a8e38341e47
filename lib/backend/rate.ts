/**
 * Rates as people write them: `100MB/s`, `64MiB/s`.
 *
 * @module
 */
import { UsageError } from "./errors.ts";
import { parseSize } from "./size.ts";

/**
 * Bytes a second of a rate such as `100MB/s`: a size as {@linkcode parseSize} takes it, and `/s`.
 * Throws {@linkcode UsageError} for any other text.
 */
export function parseRate(text: string): number {
  if (text.endsWith("/s")) return parseSize(text.slice(0, -2));
  throw new UsageError(`Cannot read ${JSON.stringify(text)} as a rate`, {
    hint: "write bytes a second, such as 100MB/s",
  });
}
