/**
 * Memory that is paged in by userfaultfd: what a first touch costs and how fast memory is read
 * through, against a bare loop that answers each fault with one page.
 *
 * @module
 */
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { addressOf } from "../ffi/libc.ts";
import { adviseAt, MADV } from "../ffi/mman.ts";
import { type BackendSource, formatSize, type Mount, mountDirect, openBackend } from "../mod.ts";
import { type BareMemory, bareMemory } from "./bare_memory.ts";
import { filledMemory, writeFilledFile } from "./filled_memory.ts";
import {
  alternateTouches,
  compareLatencies,
  figuresOf,
  readEveryPage,
  touching,
} from "./first_touches.ts";
import { stayOnOneCore } from "./one_core.ts";
import { freeAddress, telemapServe, untilServed } from "./processes.ts";
import { alternate, type Comparison, type Contestant, median, table } from "./statistics.ts";
import { takeMemory } from "./take_memory.ts";
import { readFor } from "./wire.ts";

const PAGE = 4096;
const MIB = 1 << 20;
const REGION = 1024 * MIB;
/** The bare loop reads less, as it takes that much longer. */
const BARE_REGION = 128 * MIB;
const TOUCHES = 8192;
const REMOTE_TOUCHES = 1024;
const FAULT_AROUNDS = [PAGE, 64 << 10, MIB];
const REST_MS = 2000;
/** After which whoever did something before has come to rest. */
const SETTLE_MS = 500;

/** Measures all of it. */
export async function compareUserfault(rounds: number): Promise<string[]> {
  const directory = await Deno.makeTempDir({ prefix: "telemap-bench-" });
  const file = `${directory}/region`, url = `file:${file}?readonly`, remote = freeAddress();
  try {
    await writeFilledFile(file, REGION);
    await using _server = telemapServe(`pattern:${REGION}`, remote);
    await (await untilServed(remote)).close();
    return [
      ...(await compareResident(file, rounds, "one core")),
      ...(await compareResident(file, rounds, "all cores")),
      table(await compareRandom(rounds, "one core")),
      table(await compareRandom(rounds, "all cores")),
      table(await compareSequential("memory", filledMemory(REGION), rounds)),
      table(await compareSequential("a file", url, rounds)),
      table(await compareRemoteSequential(remote, rounds)),
      ...(await compareRemote(remote, rounds)),
      await timeAtRest(remote, rounds),
    ];
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function mountMemory(backend: BackendSource, faultAround?: number): Promise<Mount> {
  return mountDirect({
    backend,
    as: "slice",
    device: "userfault",
    ...(faultAround !== undefined && { memory: { faultAround } }),
  });
}

/** A fault of one page whose content is on this host. */
async function compareResident(
  file: string,
  rounds: number,
  where: "one core" | "all cores",
): Promise<string[]> {
  const size = (rounds + 1) * TOUCHES * PAGE;
  await using resources = new AsyncDisposableStack();
  if (where === "one core") resources.use(stayOnOneCore());
  const memory = resources.use(await mountMemory(filledMemory(size), PAGE));
  const fromFile = resources.use(await mountMemory(`file:${file}?readonly`, PAGE));
  const bare: BareMemory = resources.use(await bareMemory(size));
  const bareFile: BareMemory = resources.use(await bareMemory(size, file));
  const contestants = new Map([
    ["telemap", touching(memory.bytes)],
    ["telemap, from a file", touching(fromFile.bytes)],
    ["bare loop", touching(bare.bytes)],
    ["bare loop that reads the file", touching(bareFile.bytes)],
  ]);
  const latencies = await alternateTouches(contestants, { size, touches: TOUCHES, rounds });
  const compare = (subject: string, ...others: string[]) => {
    const compared = new Map([subject, ...others].map((name) => [name, latencies.get(name)!]));
    const title = `Fault of 4 KiB on ${where} (p50: limit 1.3 times the bare loop)`;
    return compareLatencies(title, compared, subject).map(table);
  };
  return [
    ...compare("telemap", "bare loop"),
    ...compare("telemap, from a file", "bare loop that reads the file", "bare loop"),
  ];
}

/** Scattered faults, where what is around is of no use. */
async function compareRandom(
  rounds: number,
  where: "one core" | "all cores",
): Promise<Comparison> {
  const size = (rounds + 1) * TOUCHES * PAGE;
  await using resources = new AsyncDisposableStack();
  if (where === "one core") resources.use(stayOnOneCore());
  const around = resources.use(await mountMemory(filledMemory(size)));
  const single = resources.use(await mountMemory(filledMemory(size), PAGE));
  const contestants = new Map([
    ["default", touching(around.bytes)],
    ["4 KiB a fault", touching(single.bytes)],
  ]);
  const latencies = await alternateTouches(contestants, { size, touches: TOUCHES, rounds });
  const figures = figuresOf(latencies, (values) => values.reduce((sum, us) => sum + us) / TOUCHES);
  const title = `Random first touches on ${where}, by faultAround: mean (us)`;
  return { title, figures, better: "lower", subject: "default" };
}

/** All of a region in order, every byte copied out of the memory. */
async function compareSequential(
  name: string,
  backend: BackendSource,
  rounds: number,
  others: Contestant[] = [],
): Promise<Comparison> {
  const contestants: Contestant[] = FAULT_AROUNDS.map((faultAround) => ({
    name: formatSize(faultAround),
    run: async () => {
      takeMemory(REGION);
      await using mount = await mountMemory(backend, faultAround);
      return readThrough(mount.bytes);
    },
  }));
  const bare = async () => {
    using memory = await bareMemory(BARE_REGION);
    return readThrough(memory.bytes);
  };
  contestants.push({ name: "bare loop", run: bare }, ...others);
  const figures = await alternate(contestants, rounds);
  const title =
    `Sequential read of 1 GiB from ${name}, by faultAround (GB/s, limit 3 or 5 times the bare loop)`;
  return { title, figures, better: "higher", subject: formatSize(FAULT_AROUNDS[1]!) };
}

/** The same over the wire, beside what that gives to calls. */
async function compareRemoteSequential(url: string, rounds: number): Promise<Comparison> {
  await using region = await openBackend(url);
  const calls = { name: "readAt, 8 at a time", run: async () => await readFor(region, 1) / 1000 };
  return await compareSequential("telemap:// over loopback", url, rounds, [calls]);
}

function readThrough(bytes: Uint8Array): number {
  const piece = new Uint8Array(MIB);
  const start = performance.now();
  for (let at = 0; at < bytes.length; at += piece.length) {
    piece.set(bytes.subarray(at, at + piece.length));
  }
  return bytes.length / 1e6 / (performance.now() - start);
}

/** First touches of what another process serves, and the same by FUSE and by a call. */
async function compareRemote(url: string, rounds: number): Promise<string[]> {
  await using userfault = await mountMemory(url);
  await using fuse = await mountDirect({ backend: url, as: "slice", device: "fuse" });
  await using region = await openBackend(url);
  // As there is no order to be found: the kernel would read 4 MiB around each page.
  adviseAt(addressOf(fuse.bytes), REGION, MADV.RANDOM, fuse.path);
  const page = new Uint8Array(PAGE);
  const reading = async (pages: Uint32Array, latencies: Float64Array) => {
    for (let index = 0; index < pages.length; index++) {
      const start = performance.now();
      await region.readAt(page, pages[index]! * PAGE);
      latencies[index] = (performance.now() - start) * 1000;
    }
  };
  const contestants = new Map([
    ["userfault", touching(userfault.bytes)],
    ["fuse, MADV_RANDOM", touching(fuse.bytes)],
    ["readAt of 4 KiB", reading],
  ]);
  const options = { size: REGION, touches: REMOTE_TOUCHES, rounds };
  const latencies = await alternateTouches(contestants, options);
  const title = "Random first touch over telemap:// on loopback";
  return compareLatencies(title, latencies, "userfault").map(table);
}

/** What mounts cost that nobody touches, as a line. */
async function timeAtRest(url: string, rounds: number): Promise<string> {
  const without = await restTimes(rounds);
  await using memory = await mountMemory(filledMemory(64 * MIB));
  readEveryPage(memory.bytes.subarray(0, MIB));
  const local = await restTimes(rounds);
  await using remote = await mountMemory(url);
  readEveryPage(remote.bytes.subarray(0, MIB));
  const both = await restTimes(rounds);
  return `CPU time of the process over ${REST_MS / 1000} s at rest: ${without} without a mount, ` +
    `${local} with a slice from memory, ${both} with another one from telemap:// (limit 1 ms more)`;
}

async function restTimes(rounds: number): Promise<string> {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await delay(SETTLE_MS);
    const before = process.cpuUsage();
    await delay(REST_MS);
    const { user, system } = process.cpuUsage(before);
    times.push((user + system) / 1000);
  }
  return `${median(times).toFixed(2)} ms`;
}
