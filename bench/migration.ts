/**
 * Memory of a program that writes to it, on its way to another process, over injected round-trip
 * times: how long the program stands still, beside stopping it first and copying all, and what it
 * pays meanwhile.
 *
 * @module
 */
import { Leecher, openBackend } from "../mod.ts";
import { describeMigrations, type MigrationRun, type MigrationTrip } from "./migration_table.ts";
import { MovedProcess } from "./moved_process.ts";
import { lossAtRate, lossFlatOut } from "./followed_program.ts";
import { takeLargePages, takeMemory } from "./take_memory.ts";

const SIZE = 1024 << 20, WORKING_SET = 64 << 20, PAGE = 4096;
const RATES = [10, 100, 1000];
const ROUND_TRIPS = [0, 5, 25];
/** Of both sides, for what is under way. */
const BUFFERS = 256 << 20;
/** A program that stands still for longer, in ms, is not moved, and the bench fails. */
const MOST_MS = 1000;
/** How the wire is read by itself: bytes a request, and requests at a time. */
const PIECE = 1 << 20, DEPTH = 64;
/** Measures all of it. */
export async function compareMigration(rounds: number): Promise<string[]> {
  await using control = await MovedProcess.start({
    ...{ size: WORKING_SET, workingSet: WORKING_SET, rate: 0, rtt: 0 },
  });
  const trips: MigrationTrip[] = [];
  for (const rtt of ROUND_TRIPS) {
    trips.push({
      ...{ rtt, stoppedMs: await stopAndCopy(rtt), flatOut: [] },
      rates: RATES.map((rate) => ({ rate, runs: [] })),
    });
  }
  // A machine that is slow for some minutes spoils some rounds of all, rather than all of some.
  for (let round = 0; round < rounds; round++) {
    for (const { rtt, flatOut, rates } of trips) {
      {
        await using program = await start(0, rtt);
        flatOut.push(await lossFlatOut(program, control, rtt));
      }
      for (const { rate, runs } of rates) runs.push(await move(rate, rtt));
    }
  }
  return [describeMigrations(trips, "Memory of 1 GiB moves, of which 64 MiB are written")];
}

/** One migration while the program writes at a rate in MiB a second, from before the copy on. */
async function move(rate: number, rtt: number): Promise<MigrationRun> {
  await using program = await start(rate, rtt);
  await program.do("go");
  const before = await readByWire(program.url);
  // The wire takes next to none; and what lies free for some seconds is gone again.
  await takeLargePages(2 * SIZE);
  await using leecher = await Leecher.open({
    ...{ source: program.url, local: "memory:", as: "slice", device: "userfault" },
  });
  await leecher.copied();
  // Opening goes on for a while after the copy has begun.
  const copyRate = SIZE / 1e3 / (await leecher.progress()).totalMs;
  const after = await readByWire(program.url);
  const slowdown = await lossAtRate(program, rtt);
  takeMemory(BUFFERS);
  const first = await program.ask("written");
  await leecher.finalize({ strategy: "wait", confirm: "ahead", maxDowntime: MOST_MS });
  const metrics = await leecher.progress();
  const later = await program.ask("written") - first;
  await leecher.completed();
  return {
    ...{ metrics, copyRate, wireRate: (before + after) / 2, slowdown },
    perfectBytes: perfectBytes(first, later, metrics.rounds),
  };
}

/**
 * Bytes that a perfect log would have had sent again: it knows each page that was written since it
 * was asked before, once, however often that was. It is asked first when the program is to move,
 * then once a round and for the last set; a page that is written twice between two of these later
 * questions is counted twice here, but no more pages than there are for each of them.
 */
function perfectBytes(first: number, later: number, rounds: number): number {
  const pages = WORKING_SET / PAGE;
  return (Math.min(first, pages) + Math.min(later, rounds * pages)) * PAGE;
}

/** MB/s at which a client of the wire reads all of the region, and keeps nothing. */
async function readByWire(url: string): Promise<number> {
  await using region = await openBackend(url);
  const start = performance.now();
  let offset = 0;
  const read = async () => {
    const piece = new Uint8Array(PIECE);
    while (offset < SIZE) {
      const at = offset;
      offset += PIECE;
      await region.readAt(piece, at);
    }
  };
  await Promise.all(Array.from({ length: DEPTH }, read));
  return SIZE / 1e3 / (performance.now() - start);
}

/** Milliseconds for which the program stands still that is stopped first. */
async function stopAndCopy(rtt: number): Promise<number> {
  await using program = await start(0, rtt);
  await takeLargePages(2 * SIZE);
  const begin = performance.now();
  await using leecher = await Leecher.open({
    ...{ source: program.url, local: "memory:", as: "slice", device: "userfault" },
  });
  await leecher.copied();
  await leecher.finalize();
  return performance.now() - begin;
}

function start(rate: number, rtt: number): Promise<MovedProcess> {
  return MovedProcess.start({ size: SIZE, workingSet: WORKING_SET, rate, rtt });
}
