/**
 * A Worker for device tests that writes to a slice at random until it is told to stop, and keeps
 * books that another thread can read: what it was about to write to each slot, and what it wrote.
 *
 * @module
 */
import { MemoryView } from "../../ffi/mman.ts";
import { makeRandom } from "./random.ts";

/** Bytes from one slot to the next; a slot is a number of 8 bytes. */
export const SLOT_BYTES = 512;

/** What is to be written, and the books. */
export interface WriteOrder {
  /** Where the slice lies. */
  address: number;
  /** Its bytes. */
  length: number;
  seed: number;
  /** The values that were begun, by slot; one is its slot, and a multiple of the slots' count. */
  begun: BigInt64Array<SharedArrayBuffer>;
  /** The values that were written, by slot. */
  written: BigInt64Array<SharedArrayBuffer>;
  /** Not 0: stop. */
  stop: Int32Array<SharedArrayBuffer>;
}

interface WorkerScope {
  onmessage: ((event: MessageEvent<WriteOrder>) => void) | null;
  postMessage(writes: number): void;
}

const scope = self as unknown as WorkerScope;

function write({ address, length, seed, begun, written, stop }: WriteOrder): number {
  const values = new BigInt64Array(new MemoryView(address, length).bytes.buffer);
  const random = makeRandom(seed);
  const slots = begun.length, stride = SLOT_BYTES / 8;
  let writes = 0;
  while (Atomics.load(stop, 0) === 0) {
    // A few in one place, as programs do, and then somewhere else.
    const first = random(slots);
    for (let slot = first; slot < Math.min(first + 1 + random(20), slots); slot++, writes++) {
      const value = Atomics.load(begun, slot) + BigInt(slots);
      Atomics.store(begun, slot, value);
      Atomics.store(values, slot * stride, value);
      Atomics.store(written, slot, value);
    }
  }
  return writes;
}

scope.onmessage = ({ data }) => scope.postMessage(write(data));
