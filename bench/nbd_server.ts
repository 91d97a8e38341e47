/**
 * The NBD server against nbdkit's memory plugin and qemu-nbd, with one client (fio's NBD engine)
 * on Unix sockets, over regions that hold data.
 *
 * @module
 */
import { fio, type Workload } from "./fio.ts";
import { nbdUri, Peer, telemapServe } from "./processes.ts";
import { alternate, type Comparison } from "./statistics.ts";

const SIZE = 1 << 30;
const MIB = 1 << 20;

const WORKLOADS: readonly Workload[] = [
  {
    title: "NBD 4 KiB random read, depth 32 (IOPS)",
    pattern: "randread",
    blockSize: 4096,
    depth: 32,
    figure: "iops",
  },
  {
    title: "NBD 4 KiB random write, depth 32 (IOPS)",
    pattern: "randwrite",
    blockSize: 4096,
    depth: 32,
    figure: "iops",
  },
  {
    title: "NBD 1 MiB sequential read, depth 16 (MB/s)",
    pattern: "read",
    blockSize: MIB,
    depth: 16,
    figure: "MB/s",
  },
  {
    title: "NBD 1 MiB sequential write, depth 16 (MB/s)",
    pattern: "write",
    blockSize: MIB,
    depth: 16,
    figure: "MB/s",
  },
  {
    title: "NBD 4 KiB random read, depth 1 (median us)",
    pattern: "randread",
    blockSize: 4096,
    depth: 1,
    figure: "us",
  },
];

/** Measures every workload on every server. */
export async function compareNbdServers(rounds: number, seconds: number): Promise<Comparison[]> {
  const directory = await Deno.makeTempDir({ prefix: "telemap-bench-" });
  const image = `${directory}/image`;
  try {
    await using servers = new AsyncDisposableStack();
    const sockets = await startServers(servers, directory, image);
    const comparisons: Comparison[] = [];
    for (const workload of WORKLOADS) {
      const contestants = [...sockets].map(([name, socket]) => ({
        name,
        run: () => fio(workload, { uri: nbdUri(socket) }, SIZE, seconds),
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

async function startServers(
  servers: AsyncDisposableStack,
  directory: string,
  image: string,
): Promise<Map<string, string>> {
  const socketOf = (name: string) => `${directory}/${name}.sock`;
  const sockets = new Map<string, string>();
  const start = async (name: string, peer: Peer) => {
    servers.use(peer);
    await peer.untilExists(socketOf(name));
    await fill(socketOf(name));
    sockets.set(name, socketOf(name));
  };
  await start("telemap", telemapServe("memory:1GiB", nbdUri(socketOf("telemap"))));
  await start("nbdkit", new Peer("nbdkit", ["-f", "-U", socketOf("nbdkit"), "memory", "1G"]));
  await Deno.writeFile(image, new Uint8Array());
  await Deno.truncate(image, SIZE);
  const qemu = [
    "-t",
    "-f",
    "raw",
    "-e",
    "8",
    "-k",
    socketOf("qemu-nbd"),
    "--cache=writeback",
    image,
  ];
  await start("qemu-nbd", new Peer("qemu-nbd", qemu));
  return sockets;
}

/** Writes data everywhere: clients skip what a server says is a hole. */
async function fill(socket: string): Promise<void> {
  const fill: Workload = {
    title: "",
    pattern: "write",
    blockSize: MIB,
    depth: 16,
    figure: "MB/s",
  };
  await fio(fill, { uri: nbdUri(socket) }, SIZE, 2);
}
