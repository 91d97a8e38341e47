/**
 * Sizes as people write them: `4096`, `64MiB`, `1.5GiB`, `1GB`.
 *
 * @module
 */
import { UsageError } from "./errors.ts";

const UNITS: readonly (readonly [name: string, bytes: bigint])[] = [
  ["PiB", 1n << 50n],
  ["TiB", 1n << 40n],
  ["GiB", 1n << 30n],
  ["MiB", 1n << 20n],
  ["KiB", 1n << 10n],
  ["PB", 10n ** 15n],
  ["TB", 10n ** 12n],
  ["GB", 10n ** 9n],
  ["MB", 10n ** 6n],
  ["kB", 10n ** 3n],
  ["B", 1n],
];
const BYTES_OF = new Map(UNITS.map(([name, bytes]) => [name.toLowerCase(), bytes]));
const HINT =
  "write bytes, or a number with KiB, MiB, GiB, TiB or PiB (1024) or kB, MB, GB, TB or " +
  "PB (1000), such as 4096, 64MiB or 1.5GiB";

/**
 * Bytes of a size such as `4096`, `64MiB`, `1.5GiB` or `1GB`; units in upper or lower case.
 * Throws {@linkcode UsageError} for any other text, a fraction of a byte, and over 2^53 - 1.
 */
export function parseSize(text: string): number {
  const match = /^([0-9]{1,16})(?:\.([0-9]{1,16}))?([a-z]{0,3})$/i.exec(text);
  const unit = BYTES_OF.get(match?.[3]?.toLowerCase() || "b");
  if (match === null || unit === undefined) {
    throw new UsageError(`Cannot read ${JSON.stringify(text)} as a size`, { hint: HINT });
  }
  const [, whole = "", fraction = ""] = match;
  const scaled = BigInt(whole + fraction) * unit;
  const scale = 10n ** BigInt(fraction.length);
  if (scaled % scale !== 0n) {
    throw new UsageError(`Cannot use ${text} as a size: it is no whole number of bytes`);
  }
  const bytes = scaled / scale;
  if (bytes > Number.MAX_SAFE_INTEGER) {
    throw new UsageError(`Cannot use ${text} as a size: the most is ${Number.MAX_SAFE_INTEGER}`);
  }
  return Number(bytes);
}

/**
 * The shortest exact text of a number of bytes with a unit of 1024s, or none: `64MiB`, `4097`.
 * {@linkcode parseSize} reads it back. Throws `RangeError` for what is no count of bytes.
 */
export function formatSize(bytes: number): string {
  if (!Number.isSafeInteger(bytes) || bytes < 0) {
    throw new RangeError(`Cannot format ${bytes} as a size`);
  }
  for (const [name, unit] of UNITS) {
    if (!name.endsWith("iB") || bytes === 0) continue;
    const count = bytes / Number(unit);
    if (Number.isInteger(count)) return `${count}${name}`;
  }
  return `${bytes}`;
}
