/**
 * Alternating runs, and what is told of them: medians, and ratios taken round by round, so that a
 * drift of the machine hits both sides of a ratio alike.
 *
 * @module
 */

/** One thing that is measured: answers a figure a run. */
export interface Contestant {
  /** Its name in the table. */
  name: string;
  /** One run. */
  run(): Promise<number>;
}

/** The value that a share (0 to 1) of the values lies below. */
export function percentile(values: Float64Array, share: number): number {
  return values.toSorted()[Math.floor((values.length - 1) * share)]!;
}

/** The figures of some contestants, round by round. */
export type Figures = Map<string, number[]>;

/** Which figures are better. */
export type Better = "higher" | "lower";

/** A comparison, measured. */
export interface Comparison {
  /** What is compared, with its unit. */
  title: string;
  /** The figures. */
  figures: Figures;
  /** Which figures are better. */
  better: Better;
  /** The contestant that the others are compared with. */
  subject: string;
}

/** Runs all contestants in turn, once a round. */
export async function alternate(contestants: Contestant[], rounds: number): Promise<Figures> {
  const figures: Figures = new Map(contestants.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const { name, run } of contestants) figures.get(name)!.push(await run());
  }
  return figures;
}

/** The middle one. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** How many times better the subject did than a peer: the median of the rounds' ratios. */
export function advantage(comparison: Comparison, peer: string): number {
  const ours = comparison.figures.get(comparison.subject)!;
  const theirs = comparison.figures.get(peer)!;
  const ratios = ours.map((value, round) => value / theirs[round]!);
  return comparison.better === "higher" ? median(ratios) : 1 / median(ratios);
}

/** A line a contestant: median, range, and how many times better the subject did. */
export function table(comparison: Comparison): string {
  const lines = [comparison.title];
  for (const [name, values] of comparison.figures) {
    const range = `${show(Math.min(...values))} to ${show(Math.max(...values))}`;
    const ratio = name === comparison.subject
      ? ""
      : `   ${comparison.subject} is ${advantage(comparison, name).toFixed(2)} times as good`;
    lines.push(`  ${name.padEnd(22)}${show(median(values)).padStart(10)}   (${range})${ratio}`);
  }
  return lines.join("\n");
}

function show(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toFixed(2);
}
