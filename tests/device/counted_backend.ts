/**
 * A backend for device tests: counts its calls where the test can see them, and answers at once,
 * later in any order, never, or with an error.
 *
 * @module
 */
import type { Awaitable, Backend, Extent, ZeroOptions } from "../../lib/backend/backend.ts";

/** What is counted; indices into shared {@linkcode makeCounters}. */
export const COUNT = { READ: 0, WRITE: 1, FLUSH: 2, ZERO: 3, OVERLAP: 4, HELD: 5 } as const;

/** How reads and writes are answered; `hanging` ones when the test says so. */
export type Manner = "at once" | "out of order" | "failing" | "hanging";

/** Counters that a Worker and the test share. */
export function makeCounters(): Int32Array<SharedArrayBuffer> {
  return new Int32Array(new SharedArrayBuffer(64));
}

/** See the module. Everything but reads, writes and flushes goes to the store directly. */
export class CountedBackend implements Backend {
  readonly size: number;
  readonly blockSize = 1;
  readonly durable = false;
  readonly readOnly = false;
  readonly #store: Backend;
  readonly #manner: Manner;
  readonly #counters: Int32Array<SharedArrayBuffer>;
  readonly #held: (() => void)[] = [];
  #inFlight = 0;
  #seed = 1;

  constructor(store: Backend, manner: Manner, counters: Int32Array<SharedArrayBuffer>) {
    this.size = store.size;
    this.#store = store;
    this.#manner = manner;
    this.#counters = counters;
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#count(COUNT.READ);
    return this.#answer(() => this.#store.readAt(buffer, offset));
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#count(COUNT.WRITE);
    return this.#answer(() => this.#store.writeAt(buffer, offset));
  }

  flush(): Awaitable<void> {
    this.#count(COUNT.FLUSH);
    return this.#store.flush();
  }

  zero(offset: number, length: number, options?: ZeroOptions): Awaitable<void> {
    this.#count(COUNT.ZERO);
    return this.#store.zero!(offset, length, options);
  }

  extents(offset: number, length: number): Awaitable<Extent[]> {
    return this.#store.extents!(offset, length);
  }

  /** Answers the calls that hang. */
  release(): void {
    for (const answer of this.#held.splice(0)) answer();
  }

  close(): Awaitable<void> {
    return this.#store.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #answer(call: () => Awaitable<void>): Awaitable<void> {
    if (this.#manner === "failing") throw new Error("Cannot reach the store");
    if (this.#manner === "hanging") return this.#hold(call);
    if (this.#manner !== "out of order") return call();
    this.#inFlight++;
    if (this.#inFlight > Atomics.load(this.#counters, COUNT.OVERLAP)) {
      Atomics.store(this.#counters, COUNT.OVERLAP, this.#inFlight);
    }
    return new Promise<void>((resolve) => setTimeout(resolve, this.#random() * 4)).then(() => {
      this.#inFlight--;
      return call();
    });
  }

  #hold(call: () => Awaitable<void>): Promise<void> {
    this.#count(COUNT.HELD);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#held.push(resolve);
    return promise.then(call);
  }

  #count(counter: number): void {
    Atomics.add(this.#counters, counter, 1);
  }

  /** Park and Miller's generator: the same delays in every run. */
  #random(): number {
    this.#seed = this.#seed * 48271 % 0x7fff_ffff;
    return this.#seed / 0x7fff_ffff;
  }
}
