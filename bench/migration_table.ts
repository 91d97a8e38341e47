/**
 * What is told of migrations over several round-trip times: a line each, and what became of the
 * targets.
 *
 * @module
 */
import type { MigrationMetrics } from "../mod.ts";
import { median } from "./statistics.ts";

/** What one migration came to. */
export interface MigrationRun {
  /** What the leecher told at its end. */
  metrics: Pick<
    MigrationMetrics,
    | "size"
    | "rounds"
    | "receivedBytes"
    | "downtimeMs"
    | "suspendMs"
    | "flushMs"
    | "lastSetMs"
    | "lastSetBytes"
  >;
  /** MB/s at which the region was copied first. */
  copyRate: number;
  /** MB/s at which a client of the wire reads it, right before and after that. */
  wireRate: number;
  /** Share of its rate that the program loses while it is followed by rounds. */
  slowdown: number;
  /** Bytes of what was written that a perfect log would have had sent, the last set included. */
  perfectBytes: number;
}

/** Shares of its speed that a program loses that writes as quickly as it can. */
export interface Slowdown {
  /** Asked for what it has written once a second. */
  asStandby: number;
  /** Asked again as soon as that would have been copied. */
  byRounds: number;
}

/** Migrations over one round-trip time. */
export interface MigrationTrip {
  /** The round-trip time in ms. */
  rtt: number;
  /** Milliseconds that a program stands still which is stopped first. */
  stoppedMs: number;
  /** What a program loses that writes without a limit while it is followed, round by round. */
  flatOut: Slowdown[];
  /** By what the program writes, in MiB a second. */
  rates: { rate: number; runs: MigrationRun[] }[];
}

/**
 * Most milliseconds that the program may stand still beside a round trip and its last set; the most of
 * its speed that it may lose; the least of the wire's rate that the copy is to have; how often that may
 * come over which a perfect log would have had sent.
 */
const TARGET = { OVER_MS: 20, SLOWDOWN: 0.1, OF_WIRE: 0.8, OF_PERFECT: 1.3 } as const;

/** A figure of the runs with one rate and round-trip time. */
interface Case {
  readonly name: string;
  readonly value: number;
}

/** All that is told of the trips. */
export function describeMigrations(trips: readonly MigrationTrip[], title: string): string {
  return [
    `${title} (medians)`,
    row([
      ...["rtt", "MiB/s", "downtime", "limit", "last set", "suspend", "flush"],
      ...[
        "copied",
        "of wire",
        "rounds",
        "received",
        "perfect",
        "slower",
        "flat out",
        "standby",
        "stopped",
      ],
    ]),
    ...trips.flatMap((trip) => trip.rates.map(({ rate, runs }) => row(cells(trip, rate, runs)))),
    ...verdicts(trips),
  ].join("\n");
}

function cells(trip: MigrationTrip, rate: number, runs: readonly MigrationRun[]): string[] {
  const of = (figure: (run: MigrationRun) => number) => median(runs.map(figure));
  const ms = (figure: (run: MigrationRun) => number) => of(figure).toFixed(1);
  return [
    ...[`${trip.rtt} ms`, `${rate}`, ms(({ metrics }) => metrics.downtimeMs)],
    ms((run) => limitOf(run, trip.rtt)),
    ms(({ metrics }) => metrics.lastSetMs),
    ms(({ metrics }) => metrics.suspendMs),
    ms(({ metrics }) => metrics.flushMs),
    `${of(({ copyRate }) => copyRate).toFixed(0)} MB/s`,
    of(shareOfWire).toFixed(2),
    `${of(({ metrics }) => metrics.rounds)}`,
    `${(of(repeatedBytes) / (1 << 20)).toFixed(1)} MiB`,
    `${(of(({ perfectBytes }) => perfectBytes) / (1 << 20)).toFixed(1)} MiB`,
    percent(of(({ slowdown }) => slowdown)),
    percent(median(trip.flatOut.map(({ byRounds }) => byRounds))),
    percent(median(trip.flatOut.map(({ asStandby }) => asStandby))),
    `${trip.stoppedMs.toFixed(0)} ms`,
  ];
}

/** A line a target, with the worst of all cases. */
function verdicts(trips: readonly MigrationTrip[]): string[] {
  const each = (figure: (run: MigrationRun, rtt: number) => number): Case[] =>
    trips.flatMap(({ rtt, rates }) =>
      rates.map(({ rate, runs }) => ({
        name: `${rate} MiB/s over ${rtt} ms`,
        value: median(runs.map((run) => figure(run, rtt))),
      }))
    );
  const over = highest(
    each(({ metrics, ...run }, rtt) => metrics.downtimeMs - limitOf({ metrics, ...run }, rtt)),
  );
  const slowdown = highest(each((run) => run.slowdown));
  const share = highest(each((run) => -shareOfWire(run)));
  const repeated = highest(each((run) => repeatedBytes(run) / run.perfectBytes));
  return [
    verdict(
      `stands still for ${Math.abs(over.value).toFixed(1)} ms ` +
        `${over.value > 0 ? "more" : "less"} than a round trip, ${TARGET.OVER_MS} ms and its ` +
        `last set at the rate of the copy, at ${over.name}`,
      "no more",
      over.value <= 0,
    ),
    verdict(
      `writes ${percent(slowdown.value)} less while it is followed, at ${slowdown.name}`,
      `less than ${percent(TARGET.SLOWDOWN)}`,
      slowdown.value < TARGET.SLOWDOWN,
    ),
    verdict(
      `is copied at ${(-share.value).toFixed(2)} of the wire's rate, at ${share.name}`,
      `${TARGET.OF_WIRE}`,
      -share.value >= TARGET.OF_WIRE,
    ),
    verdict(
      `is sent again ${repeated.value.toFixed(2)} times as much as a perfect log would have it, ` +
        `at ${repeated.name}`,
      `${TARGET.OF_PERFECT}`,
      repeated.value <= TARGET.OF_PERFECT,
    ),
  ];
}

/** For how long the program may stand still, in ms. */
function limitOf({ metrics, copyRate }: MigrationRun, rtt: number): number {
  return rtt + TARGET.OVER_MS + metrics.lastSetBytes / 1e3 / copyRate;
}

function shareOfWire({ copyRate, wireRate }: MigrationRun): number {
  return copyRate / wireRate;
}

/** All that came beyond the region itself, whatever for. */
function repeatedBytes({ metrics }: MigrationRun): number {
  return metrics.receivedBytes - metrics.size;
}

function highest(cases: readonly Case[]): Case {
  return cases.reduce((worst, each) => each.value > worst.value ? each : worst);
}

function verdict(what: string, target: string, isMet: boolean): string {
  return `  At worst, it ${what} (target ${target}: ${isMet ? "met" : "MISSED"})`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

function row(cells: readonly string[]): string {
  return cells.map((cell) => cell.padStart(10)).join("");
}
