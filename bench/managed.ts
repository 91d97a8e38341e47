/**
 * Managed mounts against direct ones of the same remote, over injected round-trip times and a
 * capped rate; and what is in the cache of a managed mount against a local file. All by the FUSE
 * device.
 *
 * @module
 */
import {
  type Backend,
  formatSize,
  type ManagedMount,
  type Mount,
  mountDirect,
  mountManaged,
  Pattern,
} from "../mod.ts";
import { writeFilledFile } from "./filled_memory.ts";
import { fio, type Workload } from "./fio.ts";
import { freeAddress, telemapServe, untilServed } from "./processes.ts";
import {
  chartRoundTrips,
  describeRoundTrips,
  type DirectRun,
  type MountRun,
  type PairedWrite,
  type RoundTrip,
} from "./round_trips.ts";
import { readInOrder, readPage, type Transfer, writeInOrder } from "./sequential.ts";
import { alternate, type Comparison, median, table } from "./statistics.ts";
import { takeMemory } from "./take_memory.ts";

const ROUND_TRIPS = [0, 1, 5, 10, 25, 50, 100];
const RATE = "1GB/s";
/** The round-trip time of mounts from whose cache is read. */
const WARM_RTT = 25;
/** So often a round each kind is read, on new mounts; the median counts, as some reads stall. */
const READS = 3;
/**
 * So often a round two mounts are written over in turn, of which one has no round-trip time: there and
 * back again, as the second of two writes in a row to one mount is quicker than the first.
 */
const WRITES = 16;
/** So often a round a warm mount is compared with a file: one pass of either may be a quarter slower. */
const WARM_PASSES = 4;
const PIECE = 1 << 20;
const PAGE = 4096;
const REPORT = new URL("../report/", import.meta.url);

const WARM: readonly Workload[] = [
  {
    title: "Read of what is in the cache, 1 MiB in order, depth 4 (MB/s, target 0.95 of a file)",
    pattern: "read",
    blockSize: PIECE,
    depth: 4,
    figure: "MB/s",
  },
  {
    title: "Read of what is in the cache, 4 KiB at random, depth 1 (median us)",
    pattern: "randread",
    blockSize: PAGE,
    depth: 1,
    figure: "us",
  },
];

/** How much is measured. */
export interface ManagedBenchOptions {
  /** How often. */
  rounds: number;
  /** Seconds: of each look at a warm mount, and after which direct mounts are cut short. */
  seconds: number;
  /** Bytes of the region: whole MiB. */
  size: number;
}

/** Where things are. */
interface Site {
  /** The URL of the remote, without a delay. */
  remote: string;
  /** A directory for caches and other files. */
  directory: string;
}

/** Measures all of it, and draws it into the report folder. */
export async function compareManaged(options: ManagedBenchOptions): Promise<string[]> {
  const directory = await Deno.makeTempDir({ prefix: "telemap-bench-" });
  const site: Site = { remote: freeAddress(), directory };
  try {
    await using _server = telemapServe(`memory:${options.size}`, site.remote);
    await using region = await untilServed(site.remote);
    await fillRegion(region);
    const trips = await measureRoundTrips(site, options);
    const title = `${formatSize(options.size)} of a remote at ${RATE}`;
    return [
      ...describeRoundTrips(trips, title),
      await writeCharts(chartRoundTrips(trips, title)),
      ...(await compareWarm(site, options)).map(table),
    ];
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Zeroes would travel as a flag. */
async function fillRegion(region: Backend): Promise<void> {
  const pattern = new Pattern(), piece = new Uint8Array(PIECE);
  for (let offset = 0; offset < region.size; offset += PIECE) {
    pattern.fill(piece, offset);
    await region.writeAt(piece, offset);
  }
}

/** Both kinds of mounts over each round-trip time in turn, once a round. */
async function measureRoundTrips(
  site: Site,
  { rounds, seconds, size }: ManagedBenchOptions,
): Promise<RoundTrip[]> {
  const trips: RoundTrip[] = ROUND_TRIPS.map((rtt) => ({
    ...{ rtt, direct: [], managed: [], writes: [] },
  }));
  const short = { size, limit: seconds * 1000 }, whole = { size, limit: Infinity };
  for (let round = 0; round < rounds; round++) {
    for (const { rtt, direct, managed, writes } of trips) {
      direct.push(await measureDirect(site, rtt, short));
      managed.push(await measureManaged(site, rtt, whole));
      takeMemory(4 * size);
      writes.push(...await writeInTurn(site, rtt, whole));
    }
  }
  return trips;
}

async function measureDirect(site: Site, rtt: number, transfer: Transfer): Promise<DirectRun> {
  const mount = () => mountPlain(site, rtt);
  const run = await measureReads(mount, transfer);
  await using written = await mount();
  return { ...run, write: writeInOrder(written.file, transfer) };
}

function measureManaged(site: Site, rtt: number, transfer: Transfer): Promise<MountRun> {
  return measureReads(() => mountCached(site, rtt), transfer);
}

async function measureReads(mount: () => Promise<Mount>, transfer: Transfer): Promise<MountRun> {
  const { size } = transfer;
  const firsts: number[] = [], lasts: number[] = [], reads: number[] = [];
  for (let index = 0; index < READS; index++) {
    {
      await using looked = await mount();
      lasts.push(readPage(looked.file, size - PAGE));
    }
    // A region is kept twice, in the cache and by the kernel.
    takeMemory(2 * size);
    await using read = await mount();
    firsts.push(readPage(read.file, 0));
    reads.push(readInOrder(read.file, transfer));
  }
  return { first: median(firsts), last: median(lasts), read: median(reads) };
}

/** Each mount is the first one half of the time: that one is a little slower, whatever its distance. */
async function writeInTurn(site: Site, rtt: number, transfer: Transfer): Promise<PairedWrite[]> {
  const writes: PairedWrite[] = [];
  for (const order of [["far", "near"], ["near", "far"]] as const) {
    const [first, second] = order.map((name) => () =>
      mountCached(site, name === "far" ? rtt : 0, name)
    );
    await using one = await first!();
    await using other = await second!();
    await Promise.all([one.filled(), other.filled()]);
    const [far, near] = order[0] === "far" ? [one, other] : [other, one];
    writes.push(...alternateWrites(far, near, transfer));
  }
  return writes;
}

/** Two managed mounts whose caches are full, of which one has no round-trip time. */
function alternateWrites(far: Mount, near: Mount, transfer: Transfer): PairedWrite[] {
  const write = ({ file }: Mount) => writeInOrder(file, transfer);
  // The first of those that count is to be the second in a row, as its last one is.
  write(near), write(far);
  return Array.from({ length: WRITES / 2 }, () => {
    const there = [write(far), write(near)] as const, back = [write(near), write(far)] as const;
    return { far: together(there[0], back[1]), near: together(there[1], back[0]) };
  });
}

/** MB/s of as much once at this and once at that rate. */
function together(one: number, other: number): number {
  return 2 / (1 / one + 1 / other);
}

function mountPlain({ remote }: Site, rtt: number): Promise<Mount> {
  return mountDirect({ backend: delayed(remote, rtt), device: "fuse", as: "file" });
}

/** With a cache that is empty. */
async function mountCached(
  { remote, directory }: Site,
  rtt: number,
  name = "cache",
): Promise<ManagedMount> {
  const cache = `${directory}/${name}`;
  await Deno.mkdir(cache, { recursive: true });
  await Deno.remove(cache, { recursive: true });
  await Deno.mkdir(cache);
  return await mountManaged({
    remote: delayed(remote, rtt),
    local: `file:${cache}/region`,
    device: "fuse",
    as: "file",
  });
}

function delayed(url: string, rtt: number): string {
  return `delay:${url}#rtt=${rtt}ms&rate=${RATE}`;
}

/** A mount whose cache is full against one of a file. */
async function compareWarm(
  site: Site,
  { rounds, seconds, size }: ManagedBenchOptions,
): Promise<Comparison[]> {
  const path = `${site.directory}/local`;
  await writeFilledFile(path, size);
  await using local = await mountDirect({ backend: `file:${path}`, device: "fuse", as: "file" });
  await using managed = await mountCached(site, WARM_RTT);
  await managed.filled();
  const comparisons: Comparison[] = [];
  for (const workload of WARM) {
    const contestants = [["managed", managed], ["local file", local]] as const;
    const figures = await alternate(
      contestants.map(([name, { path }]) => ({
        name,
        run: () => fio(workload, { file: path }, size, seconds),
      })),
      rounds * WARM_PASSES,
    );
    const better = workload.figure === "us" ? "lower" : "higher";
    comparisons.push({ title: workload.title, figures, better, subject: "managed" });
  }
  return comparisons;
}

/** Answers a line that says where they are. */
async function writeCharts(charts: Map<string, string>): Promise<string> {
  await Deno.mkdir(REPORT, { recursive: true });
  const paths: string[] = [];
  for (const [name, svg] of charts) {
    const { pathname } = new URL(name, REPORT);
    await Deno.writeTextFile(pathname, svg);
    paths.push(pathname);
  }
  return `Throughput against round-trip time: ${paths.join(", ")}`;
}
