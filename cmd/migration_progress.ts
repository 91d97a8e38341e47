/**
 * What is told of a region on its way here, and how far that is.
 *
 * @module
 */
import { formatSize, type Leeching, type MigrationMetrics } from "../mod.ts";
import { ProgressTeller } from "./progress_teller.ts";

const MIB = 2 ** 20;

/** Tells of a region on its way; see {@linkcode ProgressTeller}. */
export function tellMigration(
  leecher: Leeching<unknown>,
  options: { json: boolean },
): ProgressTeller<MigrationMetrics> {
  return new ProgressTeller<MigrationMetrics>({
    look: () => leecher.progress(),
    // Events of their own tell how far a standby is behind.
    mark: ({ state, localBytes, rounds }) => `${state} ${localBytes} ${options.json ? 0 : rounds}`,
    line: (now, before) => {
      const bytes = now.receivedBytes - (before?.found.receivedBytes ?? now.receivedBytes);
      return migrationLine(now, before === undefined ? 0 : bytes / before.ms * 1000);
    },
  }, options);
}

/** The line for a state and bytes a second, e.g. `copying 42%  430MiB of 1GiB  96 MiB/s`. */
export function migrationLine(metrics: MigrationMetrics, rate: number): string {
  const { state, size, localBytes, rounds, lagMs, lagBytes, faults } = metrics;
  const parts = [`${state} ${Math.floor(localBytes / size * 100)}%`];
  if (state === "following") {
    parts.push(`round ${rounds}`, `behind ${(lagMs / 1000).toFixed(1)} s`);
    if (lagBytes > 0) parts.push(`and ${formatSize(lagBytes)}`);
  } else parts.push(`${formatSize(localBytes)} of ${formatSize(size)}`);
  if (rate >= MIB / 2) parts.push(`${(rate / MIB).toFixed(0)} MiB/s`);
  if (faults.count > 0) {
    parts.push(`${faults.count} faults, half of them within ${faults.p50Ms.toFixed(1)} ms`);
  }
  return parts.join("  ");
}
