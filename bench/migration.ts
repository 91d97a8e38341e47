/**
 * Memory of a program that writes to it, on its way to another process, over injected round-trip
 * times: how long the program stands still, beside stopping it first and copying all, and what it
 * pays meanwhile.
 *
 * @module
 */
import { TextLineStream } from "@std/streams";
import { Leecher, type MigrationMetrics, openBackend } from "../mod.ts";
import { median } from "./statistics.ts";
import { takeMemory } from "./take_memory.ts";

const SIZE = 1024 << 20;
const RATES = [10, 100, 1000];
const ROUND_TRIPS = [0, 5, 25];
/** How the wire is read by itself: bytes a request, and requests at a time. */
const PIECE = 1 << 20, DEPTH = 64;
/** How long the program may stand still beside a round trip and its last set. */
const OVER_MS = 20;

/** What one migration came to. */
interface Run {
  metrics: MigrationMetrics;
  /** MB/s at which the region was copied first, and what of the wire's that is. */
  copyRate: number;
  ofWire: number;
  /** Share of its speed that the program lost while it was followed. */
  slowdown: number;
}

/** Measures all of it. */
export async function compareMigration(rounds: number): Promise<string[]> {
  const lines = [
    "Memory of 1 GiB moves, of which 64 MiB are written (medians)",
    "   MiB/s     rtt  downtime   limit  last set  suspend   flush      copied  of wire  rounds  received  slower  stop and copy",
  ];
  for (const rtt of ROUND_TRIPS) {
    const stopped = await stopAndCopy(rtt);
    for (const rate of RATES) {
      const runs: Run[] = [];
      for (let round = 0; round < rounds; round++) runs.push(await move(rate, rtt));
      lines.push(describe(rate, rtt, runs, stopped));
    }
  }
  return [lines.join("\n")];
}

function describe(rate: number, rtt: number, runs: readonly Run[], stopped: number): string {
  const of = (figure: (run: Run) => number) => median(runs.map(figure));
  const { downtimeMs, lastSetMs, suspendMs, flushMs, rounds, receivedBytes } = Object.fromEntries(
    (["downtimeMs", "lastSetMs", "suspendMs", "flushMs", "rounds", "receivedBytes"] as const)
      .map((name) => [name, of(({ metrics }) => metrics[name])]),
  ) as Record<string, number>;
  const limit = of(({ metrics, copyRate }) =>
    rtt + OVER_MS + metrics.lastSetBytes / 1e6 / copyRate * 1000
  );
  return [
    `${rate}`.padStart(8),
    `${rtt} ms`.padStart(8),
    ...[downtimeMs!, limit].map((ms) => `${ms.toFixed(1)}`.padStart(8)),
    ...[lastSetMs!, suspendMs!, flushMs!].map((ms) => ms.toFixed(1).padStart(8)),
    `${of(({ copyRate }) => copyRate).toFixed(0)} MB/s`.padStart(11),
    of(({ ofWire }) => ofWire).toFixed(2).padStart(8),
    `${rounds}`.padStart(7),
    `${(receivedBytes! / SIZE).toFixed(2)} x`.padStart(9),
    `${(of(({ slowdown }) => slowdown) * 100).toFixed(0)} %`.padStart(7),
    `${stopped.toFixed(0)} ms`.padStart(12),
  ].join(" ");
}

/** One migration while the program writes at a rate in MiB a second. */
async function move(rate: number, rtt: number): Promise<Run> {
  await using program = await Program.start(rate, rtt);
  const alone = Number(await program.ask("speed"));
  const wireRate = await readByWire(program.url);
  takeMemory(2 * SIZE);
  await using leecher = await Leecher.open({
    ...{ source: program.url, local: "memory:", as: "slice", device: "userfault" },
  });
  const start = performance.now();
  await leecher.copied();
  const copyRate = SIZE / 1e3 / (performance.now() - start);
  const followed = Number(await program.ask("speed"));
  await program.ask("go");
  await leecher.finalize({ strategy: "force", maxTime: 10_000 });
  const metrics = await leecher.progress();
  await leecher.completed();
  return { metrics, copyRate, ofWire: copyRate / wireRate, slowdown: 1 - followed / alone };
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
  await using program = await Program.start(0, rtt);
  takeMemory(2 * SIZE);
  const start = performance.now();
  await using leecher = await Leecher.open({
    ...{ source: program.url, local: "memory:", as: "slice", device: "userfault" },
  });
  await leecher.copied();
  await leecher.finalize();
  return performance.now() - start;
}

/** The program in a process of its own, and the relay in front of it. */
class Program implements AsyncDisposable {
  /** Where its seeder is reached. */
  readonly url: string;
  readonly #lines: Lines;
  readonly #relay: Lines | undefined;

  static async start(rate: number, rtt: number): Promise<Program> {
    const program = new Lines("moved_program.ts", [`${SIZE}`, `${rate}`]);
    const url = new URL(await program.next());
    if (rtt === 0) return new Program(url.href, program, undefined);
    const relay = new Lines("delayed_relay.ts", [url.host, `${rtt}`]);
    return new Program(`telemap://127.0.0.1:${await relay.next()}`, program, relay);
  }

  private constructor(url: string, lines: Lines, relay: Lines | undefined) {
    this.url = url;
    this.#lines = lines;
    this.#relay = relay;
  }

  ask(line: string): Promise<string> {
    return this.#lines.ask(line);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lines[Symbol.asyncDispose]();
    await this.#relay?.[Symbol.asyncDispose]();
  }
}

/** A program of this folder that is talked to line by line; killed at the end. */
class Lines implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #output: ReadableStreamDefaultReader<string>;

  constructor(script: string, args: string[]) {
    const { pathname } = new URL(script, import.meta.url);
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "-A", pathname, ...args],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#output = this.#child.stdout.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream()).getReader();
  }

  async next(): Promise<string> {
    const { value } = await this.#output.read();
    if (value === undefined) throw new Error("A program of the benchmark ended");
    return value;
  }

  async ask(line: string): Promise<string> {
    await this.#input.write(new TextEncoder().encode(`${line}\n`));
    return await this.next();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.status;
    await this.#input.abort().catch(() => {});
    await this.#output.cancel().catch(() => {});
  }
}
