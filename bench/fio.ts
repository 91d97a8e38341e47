/**
 * One run of fio's NBD engine or of fio on a file, and the figure that counts.
 *
 * @module
 */

/** What fio does. */
export interface Workload {
  /** Its title in tables, with the unit of the figure. */
  title: string;
  /** fio's `rw`. */
  pattern: "read" | "write" | "randread" | "randwrite";
  /** Bytes a request. */
  blockSize: number;
  /** Requests in flight. */
  depth: number;
  /** The figure: requests a second, MB/s, or the median latency in microseconds. */
  figure: "iops" | "MB/s" | "us";
}

/** What fio works on. */
export type Target = { uri: string } | { file: string };

interface FioDirection {
  iops: number;
  bw_bytes: number;
  clat_ns: { percentile: Record<string, number> };
}

/** Runs a workload for so many seconds over `size` bytes and answers its figure. */
export async function fio(
  workload: Workload,
  target: Target,
  size: number,
  seconds: number,
): Promise<number> {
  const where = "uri" in target
    ? ["--ioengine=nbd", `--uri=${target.uri}`]
    : ["--ioengine=libaio", "--direct=1", `--filename=${target.file}`];
  const { code, stdout, stderr } = await new Deno.Command("fio", {
    args: [
      "--name=bench",
      ...where,
      `--rw=${workload.pattern}`,
      `--bs=${workload.blockSize}`,
      `--iodepth=${workload.depth}`,
      `--size=${size}`,
      "--time_based",
      `--runtime=${seconds}`,
      "--output-format=json",
    ],
  }).output();
  const text = new TextDecoder().decode(stdout);
  if (code !== 0) throw new Error(`fio failed: ${new TextDecoder().decode(stderr)}${text}`);
  const job = JSON.parse(text.slice(text.indexOf("{"))).jobs[0];
  const direction: FioDirection = workload.pattern.endsWith("read") ? job.read : job.write;
  switch (workload.figure) {
    case "iops":
      return direction.iops;
    case "MB/s":
      return direction.bw_bytes / 1e6;
    case "us":
      return direction.clat_ns.percentile["50.000000"]! / 1000;
  }
}
