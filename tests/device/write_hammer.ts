/**
 * Tracks a memory that a running WebAssembly instance hammers on another thread, and keeps a copy
 * of it by what the tracker tells: in the end both must be equal.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { MemoryTracker } from "../../lib/tracking/tracked_memory.ts";
import { trackMemory, type TrackMemoryOptions } from "../../mod.ts";
import { makeRandom } from "./random.ts";
import { CONTROL, type HammerOrder } from "./write_hammer_worker.ts";

const PAGE = 65536;
/** The longest pause between two collections, in ms. */
const PAUSE_MS = 10;

/** How {@linkcode hammerTracked} hammers. */
export interface HammerOptions extends TrackMemoryOptions {
  /** Bytes at first, a power of two; the memory grows to twice as much half-way. */
  size: number;
  /** How long, in ms. */
  duration: number;
  /** Not 0. */
  seed: number;
}

/** What {@linkcode hammerTracked} did. */
export interface HammerResult {
  /** How the writes were noticed. */
  method: string;
  /** Collections. */
  rounds: number;
  /** Words that were written. */
  writes: number;
  /** Bytes that the copy was sent. */
  pushed: number;
}

/** See the module. */
export async function hammerTracked(options: HammerOptions): Promise<HammerResult> {
  const { size, duration, seed, ...tracking } = options;
  const pages = size / PAGE;
  const memory = new WebAssembly.Memory({ initial: pages, maximum: 2 * pages, shared: true });
  await using tracker = await trackMemory(memory, tracking);
  const copy = new Uint8Array(2 * size);
  await using writer = await Writer.start(memory, size, seed);
  const result = { method: tracker.method, rounds: 0, writes: 0, pushed: 0 };
  const random = makeRandom(seed);
  const end = performance.now() + duration;
  for (let grown = false; performance.now() < end; result.rounds++) {
    result.pushed += await push(tracker, copy);
    // Now and then the writer gets further ahead.
    if (random(2) === 0) await delay(random(PAUSE_MS));
    if (!grown && performance.now() > end - duration / 2) {
      grown = true;
      memory.grow(pages);
      writer.setSize(2 * size);
    }
  }
  result.writes = await writer.stop();
  result.pushed += await push(tracker, copy);
  assertSame(copy, new Uint8Array(memory.buffer));
  assertEquals(sumOfWords(copy), result.writes);
  assertEquals([...await tracker.dirty()], [], "nothing was written any more");
  return result;
}

function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Copies what was written, and answers how much. */
async function push(tracker: MemoryTracker, copy: Uint8Array): Promise<number> {
  const ranges = await tracker.dirty();
  const { bytes } = tracker;
  for (const { offset, length } of ranges) {
    copy.set(bytes.subarray(offset, offset + length), offset);
  }
  return ranges.byteLength;
}

/** The Worker that writes. */
class Writer implements AsyncDisposable {
  readonly #worker = new Worker(new URL("./write_hammer_worker.ts", import.meta.url), {
    type: "module",
  });
  readonly #control = new Int32Array(new SharedArrayBuffer(8));
  readonly #begun = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<number>();

  /** Begins to write to the first `size` bytes of a memory. */
  static async start(memory: WebAssembly.Memory, size: number, seed: number): Promise<Writer> {
    const writer = new Writer();
    writer.setSize(size);
    writer.#worker.postMessage({ memory, seed, control: writer.#control } satisfies HammerOrder);
    await writer.#begun.promise;
    return writer;
  }

  private constructor() {
    this.#worker.onmessage = ({ data }: MessageEvent<number>) => {
      if (data === 0) this.#begun.resolve();
      else this.#ended.resolve(data);
    };
  }

  /** Writes to as many bytes, a power of two. */
  setSize(size: number): void {
    Atomics.store(this.#control, CONTROL.MASK, size - 4);
  }

  /** Ends, and answers how many words were written. */
  async stop(): Promise<number> {
    Atomics.store(this.#control, CONTROL.STOP, 1);
    return await this.#ended.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    this.#worker.terminate();
  }
}

function assertSame(copy: Uint8Array, memory: Uint8Array): void {
  assertEquals(copy.length, memory.length);
  const differing: number[] = [];
  for (let at = 0; at < copy.length && differing.length < 5; at++) {
    if (copy[at] !== memory[at]) differing.push(at);
  }
  assert(differing.length === 0, `the copy differs at ${differing.join(", ")}, …`);
}

/** Each write added 1 to a word. */
function sumOfWords(bytes: Uint8Array<ArrayBuffer>): number {
  return new Uint32Array(bytes.buffer).reduce((sum, word) => sum + word, 0);
}
