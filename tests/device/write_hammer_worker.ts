/**
 * A Worker whose WebAssembly instance adds 1 to random words of a shared memory until it is told to
 * stop. It says that it begins by a 0, and in the end how often it did.
 *
 * @module
 */
import { makeHammer } from "./write_hammer_module.ts";

/** What the Worker is sent. */
export interface HammerOrder {
  /** The memory, shared. */
  memory: WebAssembly.Memory;
  /** Not 0: the random choices follow from it. */
  seed: number;
  /** Words of {@linkcode CONTROL}, shared. */
  control: Int32Array<SharedArrayBuffer>;
}

/** What the words of `control` say. */
export const CONTROL = {
  /** Not 0: stop. */
  STOP: 0,
  /** As `mask` of `HammerExports.hammer`. */
  MASK: 1,
} as const;

const WRITES_A_TURN = 50;

interface WorkerScope {
  onmessage: ((event: MessageEvent<HammerOrder>) => void) | null;
  postMessage(writes: number): void;
  close(): void;
}

const scope = self as unknown as WorkerScope;

scope.onmessage = ({ data: { memory, seed, control } }) => {
  const { hammer } = makeHammer(memory);
  let state = seed, writes = 0;
  scope.postMessage(writes);
  while (Atomics.load(control, CONTROL.STOP) === 0) {
    state = hammer(state, WRITES_A_TURN, Atomics.load(control, CONTROL.MASK));
    writes += WRITES_A_TURN;
  }
  scope.postMessage(writes);
  scope.close();
};
