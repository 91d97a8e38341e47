import { assertStringIncludes } from "@std/assert";
import { describeMigrations, type MigrationRun, type MigrationTrip } from "./migration_table.ts";

const MIB = 1 << 20;

/** 1 GB/s over the wire and in the copy; 1 ms for the last set. */
function run(changes: Partial<MigrationRun> & { downtimeMs?: number; sent?: number }) {
  const { downtimeMs = 20, sent = 10 * MIB, ...rest } = changes;
  return {
    metrics: {
      ...{ size: 64 * MIB, rounds: 2, receivedBytes: 64 * MIB + sent, downtimeMs },
      ...{ suspendMs: 1, flushMs: 1, lastSetMs: 1, lastSetBytes: 1e6 },
    },
    ...{ copyRate: 1000, wireRate: 1000, slowdown: 0.05, perfectBytes: 10 * MIB, ...rest },
  };
}

function trip(rtt: number, runs: MigrationRun[]): MigrationTrip {
  const flatOut = [{ asStandby: 0.01, byRounds: 0.3 }];
  return { rtt, stoppedMs: 500, flatOut, rates: [{ rate: 10, runs }] };
}

Deno.test("migrations: tells which targets were met", () => {
  const text = describeMigrations([trip(0, [run({})]), trip(5, [run({ downtimeMs: 26 })])], "");
  assertStringIncludes(text, "for 0.0 ms less than a round trip");
  assertStringIncludes(text, "last set at the rate of the copy, at 10 MiB/s over 5 ms");
  assertStringIncludes(text, "(target no more: met)");
  assertStringIncludes(
    text,
    "5.0 % less while it is followed, at 10 MiB/s over 0 ms (target less than 10.0 %",
  );
  assertStringIncludes(text, "1.00 of the wire's rate, at 10 MiB/s over 0 ms (target 0.8: met)");
  assertStringIncludes(text, "1.00 times as much as a perfect log");
  assertStringIncludes(text, "over 0 ms (target 1.3: met)");
});

Deno.test("migrations: tells which targets were missed, and where it is worst", () => {
  const worst = { downtimeMs: 26.5, copyRate: 700, sent: 14 * MIB, slowdown: 0.2 };
  const text = describeMigrations([trip(0, [run({})]), trip(5, [run(worst)])], "");
  // A slower copy allows its last set more: 1.43 ms.
  assertStringIncludes(text, "for 0.1 ms more than a round trip");
  assertStringIncludes(text, "last set at the rate of the copy, at 10 MiB/s over 5 ms (target no");
  assertStringIncludes(text, "(target no more: MISSED)");
  assertStringIncludes(
    text,
    "20.0 % less while it is followed, at 10 MiB/s over 5 ms (target less than 10.0 %",
  );
  assertStringIncludes(text, "0.70 of the wire's rate, at 10 MiB/s over 5 ms (target 0.8: MISSED)");
  assertStringIncludes(
    text,
    "1.40 times as much as a perfect log would have it, at 10 MiB/s over 5",
  );
  assertStringIncludes(text, "(target 1.3: MISSED)");
});

Deno.test("migrations: limits are those of each round", () => {
  // The medians alone would say 0.50 of the wire's rate, and 29 ms more than there may be.
  const runs = [
    run({ copyRate: 500, wireRate: 555, downtimeMs: 50, slowdown: 0.3 }),
    run({ copyRate: 900, wireRate: 1000, downtimeMs: 20, slowdown: 0.01 }),
    run({ copyRate: 400, wireRate: 2000, downtimeMs: 10, slowdown: 0.02 }),
  ];
  const text = describeMigrations([trip(0, runs)], "");
  assertStringIncludes(text, "0.90 of the wire's rate");
  assertStringIncludes(text, "1.1 ms less than a round trip");
  assertStringIncludes(text, "2.0 % less");
});
