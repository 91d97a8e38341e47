/**
 * What is told of the cache of a managed mount, and how far that is.
 *
 * @module
 */
import { type CacheProgress, formatSize, type ManagedMount, type ProfileCounts } from "../mod.ts";
import { ProgressTeller } from "./progress_teller.ts";

/** Tells of the cache of a mount; see {@linkcode ProgressTeller}. */
export function tellCache(
  mount: ManagedMount,
  options: { json: boolean },
): ProgressTeller<CacheProgress> {
  return new ProgressTeller({
    look: () => mount.progress(),
    mark: ({ localBytes, dirtyBytes, profile }) =>
      `${localBytes} ${dirtyBytes} ${profile?.used} ${profile?.missed}`,
    line: cacheLine,
  }, options);
}

/** The line for a state, e.g. `local 42%  dirty 1536KiB  96 MiB/s  round trip 25 ms`. */
export function cacheLine(progress: CacheProgress): string {
  const { size, localBytes, dirtyBytes, rate, latency, profile } = progress;
  const parts = [
    `local ${Math.floor(localBytes / size * 100)}%`,
    `dirty ${formatSize(dirtyBytes)}`,
  ];
  if (rate > 0) parts.push(`${(rate / 2 ** 20).toFixed(0)} MiB/s`);
  if (latency > 0) parts.push(`round trip ${latency.toFixed(latency < 10 ? 1 : 0)} ms`);
  if (profile !== undefined && profile.expected > 0) {
    parts.push(`profile ${profile.used} of ${profile.expected} used, ${profile.missed} missed`);
  }
  return parts.join("  ");
}

/** What is told in the end of a profile that was used and recorded. */
export function profileLine({ expected, used, wasted, missed }: ProfileCounts): string {
  if (expected === 0) return `Profile: ${missed} chunks recorded`;
  return `Profile: ${used} of ${expected} chunks used, ${wasted} wasted, ${missed} missed`;
}
