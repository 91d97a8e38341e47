/**
 * Touches memory so that its pages fault, and takes the time of each touch.
 *
 * @module
 */
import { pageSize } from "../ffi/mman.ts";
import type { Awaitable } from "../mod.ts";
import { type Comparison, type Figures, percentile } from "./statistics.ts";

/** What was read, added up: the runtime leaves loads out whose value is of no use. */
const seen = { sum: 0 };

/** Touches of one contestant before the next one's turn: both see the machine in the same mood. */
const TOUCHES_A_TURN = 512;

/** Brings pages in one by one, and notes how long each took, in microseconds. */
export type Toucher = (pages: Uint32Array, latencies: Float64Array) => Awaitable<void>;

/** Touches pages of a memory by a load each. */
export function touching(bytes: Uint8Array): Toucher {
  const page = pageSize();
  return (pages, latencies) => {
    let sum = 0;
    for (let index = 0; index < pages.length; index++) {
      const start = performance.now();
      sum += bytes[pages[index]! * page]!;
      latencies[index] = (performance.now() - start) * 1000;
    }
    seen.sum += sum;
  };
}

/** Loads a byte of every page. */
export function readEveryPage(bytes: Uint8Array): void {
  const page = pageSize();
  let sum = 0;
  for (let at = 0; at < bytes.length; at += page) sum += bytes[at]!;
  seen.sum += sum;
}

/**
 * Has every contestant touch so many pages a round, which are scattered over `size` bytes and no page
 * twice, by turns. Answers the latencies of the rounds; one round more goes before as a warm-up.
 */
export async function alternateTouches(
  contestants: ReadonlyMap<string, Toucher>,
  options: { size: number; touches: number; rounds: number },
): Promise<Map<string, Float64Array[]>> {
  const { size, touches, rounds } = options;
  const names = [...contestants.keys()];
  const orders = new Map(names.map((name) => [name, shuffled(size / pageSize())]));
  const latencies = new Map<string, Float64Array[]>(names.map((name) => [name, []]));
  for (let round = 0; round <= rounds; round++) {
    const taken = new Map(names.map((name) => [name, new Float64Array(touches)]));
    for (let from = 0; from < touches; from += TOUCHES_A_TURN) {
      const to = Math.min(from + TOUCHES_A_TURN, touches), first = round * touches;
      for (const [name, touch] of contestants) {
        const pages = orders.get(name)!.subarray(first + from, first + to);
        await touch(pages, taken.get(name)!.subarray(from, to));
      }
    }
    if (round > 0) { for (const name of names) latencies.get(name)!.push(taken.get(name)!); }
  }
  return latencies;
}

/** Compares the medians, and the 99th percentiles, of latencies. */
export function compareLatencies(
  title: string,
  latencies: ReadonlyMap<string, Float64Array[]>,
  subject: string,
): Comparison[] {
  const compare = (name: string, share: number): Comparison => ({
    title: `${title}: ${name} (us)`,
    figures: figuresOf(latencies, (values) => percentile(values, share)),
    better: "lower",
    subject,
  });
  return [compare("p50", 0.5), compare("p99", 0.99)];
}

/** One figure of the latencies of each round. */
export function figuresOf(
  latencies: ReadonlyMap<string, Float64Array[]>,
  figure: (values: Float64Array) => number,
): Figures {
  return new Map([...latencies].map(([name, rounds]) => [name, rounds.map(figure)]));
}

function shuffled(count: number): Uint32Array {
  const pages = Uint32Array.from({ length: count }, (_, index) => index);
  for (let index = count - 1; index > 0; index--) {
    const other = Math.floor(Math.random() * (index + 1));
    [pages[index], pages[other]] = [pages[other]!, pages[index]!];
  }
  return pages;
}
