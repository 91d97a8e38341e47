/**
 * A backend that answers when a test says so.
 *
 * @module
 */
import type { Backend } from "../../lib/backend/backend.ts";

interface Held {
  offset: number;
  perform: () => void;
}

/** A stage over a backend that holds reads and writes until they are released, one by one. */
export class DelayedBackend implements Backend {
  readonly size: number;
  readonly blockSize: number;
  readonly durable: boolean;
  readonly readOnly: boolean;
  readonly #backend: Backend;
  readonly #held: Held[] = [];
  readonly #waiting: { count: number; resolve: () => void }[] = [];

  /** Takes the backend over. */
  constructor(backend: Backend) {
    const { size, blockSize, durable, readOnly } = backend;
    this.size = size;
    this.blockSize = blockSize;
    this.durable = durable;
    this.readOnly = readOnly;
    this.#backend = backend;
  }

  /** Requests that are held. */
  get count(): number {
    return this.#held.length;
  }

  /** Answers when so many requests are held. */
  held(count: number): Promise<void> {
    if (this.#held.length >= count) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ count, resolve });
    return promise;
  }

  /** Performs one of the requests that are held, the oldest of which is 0. */
  release(index: number): { offset: number } {
    const [held] = this.#held.splice(index, 1);
    held!.perform();
    return held!;
  }

  readAt(buffer: Uint8Array, offset: number): Promise<void> {
    return this.#hold(offset, () => this.#backend.readAt(buffer, offset));
  }

  writeAt(buffer: Uint8Array, offset: number): Promise<void> {
    return this.#hold(offset, () => this.#backend.writeAt(buffer, offset));
  }

  async flush(): Promise<void> {
    await this.#backend.flush();
  }

  async close(): Promise<void> {
    await this.#backend.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #hold(offset: number, operation: () => void | Promise<void>): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const perform = () => {
      Promise.resolve().then(operation).then(resolve, reject);
    };
    this.#held.push({ offset, perform });
    for (const waiting of this.#waiting.splice(0)) {
      if (this.#held.length >= waiting.count) waiting.resolve();
      else this.#waiting.push(waiting);
    }
    return promise;
  }
}
