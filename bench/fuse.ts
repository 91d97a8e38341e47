/**
 * The FUSE mount of a region in memory against nbdfuse on nbdkit's memory plugin, by fio with
 * direct I/O on the file.
 *
 * @module
 */
import { fio, type Workload } from "./fio.ts";
import { nbdUri, Peer } from "./processes.ts";
import { alternate, type Comparison } from "./statistics.ts";
import { mountDirect } from "../mod.ts";

const SIZE = 256 << 20;
const MIB = 1 << 20;

const WORKLOADS: readonly Workload[] = [
  {
    title: "FUSE 4 KiB random read, depth 1 (median us)",
    pattern: "randread",
    blockSize: 4096,
    depth: 1,
    figure: "us",
  },
  {
    title: "FUSE 4 KiB random write, depth 16 (IOPS)",
    pattern: "randwrite",
    blockSize: 4096,
    depth: 16,
    figure: "iops",
  },
  {
    title: "FUSE 1 MiB sequential read, depth 4 (MB/s)",
    pattern: "read",
    blockSize: MIB,
    depth: 4,
    figure: "MB/s",
  },
  {
    title: "FUSE 1 MiB sequential write, depth 4 (MB/s)",
    pattern: "write",
    blockSize: MIB,
    depth: 4,
    figure: "MB/s",
  },
];

/** Measures every workload on both. */
export async function compareFuse(rounds: number, seconds: number): Promise<Comparison[]> {
  const directory = await Deno.makeTempDir({ prefix: "telemap-bench-" });
  const socket = `${directory}/nbdkit.sock`, file = `${directory}/nbdfuse/region`;
  await Deno.mkdir(`${directory}/nbdfuse`);
  try {
    await using mount = await mountDirect({ backend: "memory:256MiB", device: "fuse" });
    await using nbdkit = new Peer("nbdkit", ["-f", "-U", socket, "memory", `${SIZE}`]);
    await nbdkit.untilExists(socket);
    await using nbdfuse = new Peer("nbdfuse", [file, nbdUri(socket)]);
    await nbdfuse.untilExists(file);
    const files = new Map([["telemap", mount.path], ["nbdfuse on nbdkit", file]]);
    const comparisons: Comparison[] = [];
    for (const workload of WORKLOADS) {
      const contestants = [...files].map(([name, file]) => ({
        name,
        run: () => fio(workload, { file }, SIZE, seconds),
      }));
      const figures = await alternate(contestants, rounds);
      const better = workload.figure === "us" ? "lower" : "higher";
      comparisons.push({ title: workload.title, figures, better, subject: "telemap" });
    }
    return comparisons;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}
