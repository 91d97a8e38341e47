/**
 * Options of a URL as `name=value&name=value`, in its query or fragment.
 *
 * @module
 */
import { UsageError } from "./errors.ts";

/**
 * The parameters, which are to be known and given once; else throws {@linkcode UsageError}, whose
 * message shows `url`.
 */
export function parseParameters<const K extends string>(
  url: string,
  text: string,
  known: readonly K[],
): Partial<Record<K, string>> {
  const values: Partial<Record<string, string>> = {};
  const hint = known.length > 0 ? `it may have ${known.join(", ")}` : "it may have none";
  for (const [name, value] of new URLSearchParams(text)) {
    if (!(known as readonly string[]).includes(name)) {
      throw unusableUrl(url, `the parameter ${JSON.stringify(name)} is unknown`, hint);
    }
    if (Object.hasOwn(values, name)) throw unusableUrl(url, `it has ${name} twice`);
    values[name] = value;
  }
  return values as Partial<Record<K, string>>;
}

/** The value of a parameter `seed`; throws {@linkcode UsageError} unless it is a safe integer from 0. */
export function parseSeed(url: string, value: string): number {
  const seed = /^\d+$/.test(value) ? Number(value) : NaN;
  if (Number.isSafeInteger(seed)) return seed;
  throw unusableUrl(url, `seed is no whole number from 0 to ${Number.MAX_SAFE_INTEGER}`);
}

/** What is wrong with a URL, and what to write instead. */
export function unusableUrl(url: string, reason: string, hint?: string): UsageError {
  return new UsageError(
    `Cannot use the URL ${url} as ${reason}`,
    hint === undefined ? {} : { hint },
  );
}
