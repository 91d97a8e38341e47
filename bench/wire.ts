/**
 * The native wire over loopback TCP against a bare copy through Deno's own TCP: 1 MiB reads, one
 * process each side.
 *
 * @module
 */
import type { Backend } from "../mod.ts";
import { copyServer } from "./copy_server.ts";
import { freeAddress, telemapServe, untilServed } from "./processes.ts";
import { alternate, type Comparison } from "./statistics.ts";

const SIZE = 1 << 30;
const READ = 1 << 20;
const DEPTH = 8;

/** Measures both, in MB/s. */
export async function compareWire(rounds: number, seconds: number): Promise<Comparison> {
  const listen = freeAddress();
  await using _server = telemapServe("memory:1GiB", listen);
  await using region = await untilServed(listen);
  await fillRegion(region);
  await using bare = await copyServer(READ);
  const contestants = [
    { name: "telemap", run: () => readFor(region, seconds) },
    { name: "bare Deno TCP", run: () => bare.read(seconds) },
  ];
  const figures = await alternate(contestants, rounds);
  const title = "Native wire, 1 MiB reads over loopback TCP (MB/s)";
  return { title, figures, better: "higher", subject: "telemap" };
}

/** Data that is neither zero, which would travel as a flag, nor worth compressing. */
async function fillRegion(region: Backend): Promise<void> {
  const data = new Uint8Array(READ);
  for (let at = 0; at < READ; at += 65_536) crypto.getRandomValues(data.subarray(at, at + 65_536));
  for (let offset = 0; offset < SIZE; offset += READ) await region.writeAt(data, offset);
}

/** Reads a region of 1 GiB by 8 calls at a time, for so many seconds; answers MB/s. */
export async function readFor(region: Backend, seconds: number): Promise<number> {
  const start = performance.now(), end = start + seconds * 1000;
  let bytes = 0, offset = 0;
  const worker = async () => {
    const buffer = new Uint8Array(READ);
    while (performance.now() < end) {
      const at = offset;
      offset = (offset + READ) % SIZE;
      await region.readAt(buffer, at);
      bytes += READ;
    }
  };
  await Promise.all(Array.from({ length: DEPTH }, worker));
  return bytes / 1000 / (performance.now() - start);
}
