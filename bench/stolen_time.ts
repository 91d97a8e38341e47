/**
 * How much of its time a virtual machine had to wait for its host. What is measured meanwhile is the
 * slower for it, and not evenly: some milliseconds here and there.
 *
 * @module
 */

/** Of the fields of a line `cpu`, in ticks (proc_stat(5)): all but those in which nothing was to do. */
const BUSY = [0, 1, 2, 5, 6], STOLEN = 7;

/** What `/proc/stat` says now. */
export function readCpuTimes(): string {
  return Deno.readTextFileSync("/proc/stat");
}

/** Share of the time in which there was something to do that the host gave to others, between two reads. */
export function stolenShare(before: string, after: string): number {
  const [first, last] = [ticks(before), ticks(after)];
  const passed = (field: number) => last[field]! - first[field]!;
  const stolen = passed(STOLEN), busy = BUSY.reduce((sum, field) => sum + passed(field), 0);
  return stolen === 0 ? 0 : stolen / (stolen + busy);
}

function ticks(stat: string): number[] {
  const line = stat.slice(0, stat.indexOf("\n"));
  return line.trim().split(/\s+/).slice(1).map(Number);
}
