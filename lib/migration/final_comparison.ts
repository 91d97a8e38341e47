/**
 * What is done before a source is let go of: all of it is compared with the copy, and both sides agree on
 * what was given.
 *
 * @module
 */
import { IntegrityError } from "../backend/errors.ts";
import { RootDigest } from "../chunk/digests.ts";
import type { Compared, LeechedRegion } from "./leeched_region.ts";
import type { SeederClient } from "./seeder_client.ts";
import type { TrackedSource } from "./tracked_source.ts";

/** What is compared. */
export interface ComparisonOptions {
  /** Who asks the source. */
  client: SeederClient;
  /** The source, which stands still. */
  source: TrackedSource;
  /** The copy. */
  copy: LeechedRegion;
  /** Under which it was given. */
  epoch: number;
  /** Counts the chunks. */
  compared: Compared;
  /** Ends it. */
  signal: AbortSignal;
}

/**
 * Compares what the program has not changed here with the source; answers with the root digest of what
 * was given, in hexadecimal digits.
 *
 * @throws {IntegrityError} They differ.
 */
export async function compareFinally(options: ComparisonOptions): Promise<string> {
  const { client, source, copy, epoch, compared, signal } = options;
  const { size, region: { chunkSize } } = copy;
  const all = new RootDigest({ size, chunkSize });
  await source.eachDigests(async (from, digests) => {
    for (const digest of digests) all.add(digest);
    const found = await copy.compare(from, digests);
    compared.equal += found.equal;
    compared.different += found.different;
    compared.left += found.left;
  }, signal);
  if (compared.different > 0) throw differs(`in ${compared.different} chunk(s)`);
  const root = all.end().toHex(), { root: given } = await client.root({ epoch }, { signal });
  // Also of what was changed here meanwhile, which cannot be compared by itself.
  if (given.toHex() !== root) throw differs("by its root digest");
  return root;
}

function differs(where: string): IntegrityError {
  return new IntegrityError(`Cannot let go of the source, from which this copy differs ${where}`, {
    hint: "the source still has the region as it was: mount it there, read-only",
  });
}
