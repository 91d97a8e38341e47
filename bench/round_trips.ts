/**
 * What is told of direct and managed mounts over several round-trip times: a table a figure, what
 * became of the targets, and charts.
 *
 * @module
 */
import { type LineChart, lineChart } from "./line_chart.ts";
import { median, percentile } from "./statistics.ts";

/** What new mounts of one kind showed in one round. */
export interface MountRun {
  /** Milliseconds of the first 4 KiB after the mount, at its beginning. */
  first: number;
  /** The same of another mount, at its end. */
  last: number;
  /** MB/s of reading all of it in order. */
  read: number;
}

/** The same of a direct mount, which is written too. */
export interface DirectRun extends MountRun {
  /** MB/s of writing all of it in order. */
  write: number;
}

/** MB/s of writing all of two managed mounts in order, there and back again, with full caches. */
export interface PairedWrite {
  /** With the round-trip time. */
  far: number;
  /** With none. */
  near: number;
}

/** What was measured with one round-trip time, round by round. */
export interface RoundTrip {
  /** The round-trip time in ms. */
  rtt: number;
  /** Of direct mounts. */
  direct: DirectRun[];
  /** Of managed mounts. */
  managed: MountRun[];
  /** Of pairs of managed mounts. */
  writes: PairedWrite[];
}

/**
 * Least shares of their 0 ms figure that reads and writes are to keep (the latter, but for chance, all
 * of it) and of a direct mount's; most milliseconds that a first page may take over a round trip.
 */
const TARGET = { READ_OF_OWN: 0.85, WRITE_OF_OWN: 0.95, OF_DIRECT: 0.8, OVER_RTT_MS: 5 } as const;

type Figure = keyof MountRun;

/** All that is told of the trips, of which the first one has no round-trip time. */
export function describeRoundTrips(trips: readonly RoundTrip[], title: string): string[] {
  return [
    [
      `Sequential read, cold, ${title} (MB/s)`,
      ...readRows(trips),
      lowestShare(
        trips,
        (trip) => ratio(trip, "managed", "read", trips[0]!, "managed"),
        TARGET.READ_OF_OWN,
      ),
      verdict(
        "managed at 0 ms of direct",
        ratio(trips[0]!, "managed", "read", trips[0]!, "direct"),
        TARGET.OF_DIRECT,
      ),
    ],
    [
      `Sequential write over what is in the cache, ${title} (MB/s)`,
      ...writeRows(trips),
      lowestShare(trips, writeShare, TARGET.WRITE_OF_OWN),
    ],
    [
      `First 4 KiB after the mount, ${title} (ms)`,
      ...latencyRows(trips),
      latencyVerdict(trips, "first", "at the beginning"),
      latencyVerdict(trips, "last", "at the end, which comes last by itself,"),
    ],
  ].map((lines) => lines.join("\n"));
}

/** Charts of throughput against round-trip time, by the names of their files. */
export function chartRoundTrips(trips: readonly RoundTrip[], title: string): Map<string, string> {
  const chart = (figure: "read" | "write", what: string): LineChart => ({
    title: `${what}, ${title}`,
    x: "Round-trip time (ms)",
    y: "MB/s",
    series: (["direct", "managed"] as const).map((kind) => ({
      name: `${kind} mount`,
      points: trips.map((trip) => [trip.rtt, throughput(trip, kind, figure)] as const),
    })),
  });
  return new Map([
    ["managed_read.svg", lineChart(chart("read", "Sequential read, cold"))],
    ["managed_write.svg", lineChart(chart("write", "Sequential write over what is in the cache"))],
  ]);
}

function readRows(trips: readonly RoundTrip[]): string[] {
  const rows = trips.map((trip) =>
    row([
      `${trip.rtt} ms`,
      middle(trip, "direct", "read").toFixed(0),
      middle(trip, "managed", "read").toFixed(0),
      ratio(trip, "managed", "read", trip, "direct").toFixed(2),
      ratio(trip, "direct", "read", trips[0]!, "direct").toFixed(2),
      ratio(trip, "managed", "read", trips[0]!, "managed").toFixed(2),
    ])
  );
  const heads = ["round trip", "direct", "managed", "ratio", "direct of 0", "managed of 0"];
  return [row(heads), ...rows];
}

/** What a managed mount writes of one that has no round-trip time, in turn with it. */
function writeRows(trips: readonly RoundTrip[]): string[] {
  const rows = trips.map((trip) => {
    const shares = Float64Array.from(trip.writes, ({ far, near }) => far / near);
    return row([
      `${trip.rtt} ms`,
      throughput(trip, "direct", "write").toFixed(0),
      throughput(trip, "managed", "write").toFixed(0),
      median(trip.direct.map(({ write }, round) => write / trips[0]!.direct[round]!.write)).toFixed(
        2,
      ),
      writeShare(trip).toFixed(2),
      ...[0.25, 0.75].map((share) => percentile(shares, share).toFixed(2)),
      `${shares.length}`,
    ]);
  });
  const heads = ["direct", "managed", "direct of 0", "managed of 0", "lower 1/4", "upper 1/4"];
  return [row(["round trip", ...heads, "pairs"]), ...rows];
}

function latencyRows(trips: readonly RoundTrip[]): string[] {
  const rows = trips.map((trip) =>
    row([
      `${trip.rtt} ms`,
      middle(trip, "direct", "first").toFixed(2),
      middle(trip, "managed", "first").toFixed(2),
      middle(trip, "direct", "last").toFixed(2),
      middle(trip, "managed", "last").toFixed(2),
    ])
  );
  return [row(["round trip", "direct", "managed", "direct, end", "managed, end"]), ...rows];
}

/** The lowest share of what they do without a round-trip time that managed mounts keep. */
function lowestShare(
  trips: readonly RoundTrip[],
  shareOf: (trip: RoundTrip) => number,
  target: number,
): string {
  const shares = trips.map((trip) => ({ rtt: trip.rtt, share: shareOf(trip) }));
  const worst = shares.reduce((worst, each) => each.share < worst.share ? each : worst);
  return verdict(`managed at ${worst.rtt} ms, its lowest, of itself at 0 ms`, worst.share, target);
}

/** The median of all pairs. */
function writeShare({ writes }: RoundTrip): number {
  return median(writes.map(({ far, near }) => far / near));
}

/** In MB/s: of writes with a managed mount that of the pairs. */
function throughput(trip: RoundTrip, kind: "direct" | "managed", figure: "read" | "write"): number {
  if (figure === "read") return middle(trip, kind, figure);
  if (kind === "direct") return median(trip.direct.map(({ write }) => write));
  return median(trip.writes.map(({ far }) => far));
}

/** The longest over a round trip that a first page takes of managed mounts. */
function latencyVerdict(trips: readonly RoundTrip[], figure: Figure, where: string): string {
  const over = trips.map((trip) => middle(trip, "managed", figure) - trip.rtt);
  const most = Math.max(...over), at = trips[over.indexOf(most)]!.rtt;
  const met = most <= TARGET.OVER_RTT_MS ? "met" : "MISSED";
  return `  managed ${where} takes a round trip and ${most.toFixed(2)} ms at most, at ${at} ms ` +
    `(target ${TARGET.OVER_RTT_MS} ms: ${met})`;
}

function verdict(what: string, share: number, target: number): string {
  const met = share >= target ? "met" : "MISSED";
  return `  ${what}: ${share.toFixed(2)} (target ${target}: ${met})`;
}

function middle(trip: RoundTrip, kind: "direct" | "managed", figure: Figure): number {
  return median(trip[kind].map((run) => run[figure]));
}

/** The median of what a figure is of another one, round by round. */
function ratio(
  trip: RoundTrip,
  kind: "direct" | "managed",
  figure: Figure,
  of: RoundTrip,
  ofKind: "direct" | "managed",
): number {
  return median(trip[kind].map((run, round) => run[figure] / of[ofKind][round]![figure]));
}

function row(cells: readonly string[]): string {
  return "  " + cells.map((cell) => cell.padStart(13)).join("");
}
