import { assertEquals } from "@std/assert";
import type { MigrationMetrics } from "../mod.ts";
import { migrationLine } from "./migration_progress.ts";

const MIB = 2 ** 20;

const metrics: MigrationMetrics = {
  ...{ state: "copying", totalMs: 4000, rounds: 0, size: 1024 * MIB, receivedBytes: 430 * MIB },
  ...{ repeatedBytes: 0, zeroBytes: 0, localBytes: 435 * MIB, lagMs: 4000, lagBytes: 589 * MIB },
  ...{ epoch: 0, promoted: false, predictedDowntimeMs: 0, downtimeMs: 0, suspendMs: 0, flushMs: 0 },
  ...{ lastSetMs: 0, confirmMs: 0, lastSetBytes: 0, throttledRate: 0 },
  faults: { count: 0, p50Ms: 0, p99Ms: 0 },
  compared: { equal: 0, different: 0, left: 0 },
  root: "",
};

Deno.test("the line of a region that is copied tells how much is here, and how fast it comes", () => {
  assertEquals(migrationLine(metrics, 96 * MIB), "copying 42%  435MiB of 1GiB  96 MiB/s");
  assertEquals(migrationLine(metrics, 0), "copying 42%  435MiB of 1GiB");
});

Deno.test("the line of a region that is followed tells how far it is behind", () => {
  const following = { ...metrics, state: "following", rounds: 3, localBytes: 1024 * MIB } as const;
  const line = "following 100%  round 3  behind 0.5 s";
  assertEquals(migrationLine({ ...following, lagMs: 520, lagBytes: 0 }, 0), line);
  const behind = { ...following, lagMs: 520, lagBytes: 2 * MIB };
  assertEquals(migrationLine(behind, 0), `${line}  and 2MiB`);
});

Deno.test("the line of a region that was taken over tells of those who waited for it", () => {
  const faults = { count: 12, p50Ms: 3.14, p99Ms: 9 };
  const line = "owner 42%  435MiB of 1GiB  12 faults, half of them within 3.1 ms";
  assertEquals(migrationLine({ ...metrics, state: "owner", faults }, 0), line);
});
