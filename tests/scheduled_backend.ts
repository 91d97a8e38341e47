/**
 * A region in memory of which each operation takes place when a test's scheduler says so: first it
 * arrives, then it is done, then it is answered. It may fail, before it is done or after it. When a
 * flush fails, the store has lost what was not flushed, as a server does that was started again.
 *
 * @module
 */
import { assert } from "@std/assert";
import { type Backend, checkRange, type ZeroOptions } from "../lib/backend/backend.ts";
import { ConnectionError } from "../lib/backend/errors.ts";

/** How a {@linkcode ScheduledBackend} behaves. */
export interface ScheduledOptions {
  /** Bytes. */
  size: number;
  /** Answers when the operation of that name may go on. */
  step(name: string): Promise<unknown>;
  /** Whether the operation of that name fails; asked before and after it is done. */
  fails(name: string): boolean;
  /** Called whenever something was done. */
  onDone?(): void;
  /** Called before bytes `[from, to)` change. */
  onChange?(from: number, to: number): void;
  /** Called when bytes `[from, to)` were read. */
  onRead?(from: number, to: number): void;
}

/** See the module. */
export class ScheduledBackend implements Backend {
  readonly blockSize = 1;
  readonly durable = true;
  readonly readOnly = false;
  readonly size: number;
  /** What a reader sees. */
  readonly bytes: Uint8Array;
  /** What would be left of it without power. */
  readonly kept: Uint8Array;
  readonly #options: ScheduledOptions;
  #losses = 0;
  #closed = false;

  /** Makes a region of zeroes. */
  constructor(options: ScheduledOptions) {
    this.#options = options;
    this.size = options.size;
    this.bytes = new Uint8Array(options.size);
    this.kept = new Uint8Array(options.size);
  }

  async readAt(buffer: Uint8Array, offset: number): Promise<void> {
    const end = offset + buffer.length;
    await this.#run("read", offset, buffer.length, () => {
      buffer.set(this.bytes.subarray(offset, end));
      this.#options.onRead?.(offset, end);
    });
  }

  async writeAt(buffer: Uint8Array, offset: number): Promise<void> {
    await this.#run("write", offset, buffer.length, () => {
      this.#options.onChange?.(offset, offset + buffer.length);
      this.bytes.set(buffer, offset);
    });
  }

  async zero(offset: number, length: number, _options?: ZeroOptions): Promise<void> {
    await this.#run("zero", offset, length, () => {
      this.#options.onChange?.(offset, offset + length);
      this.bytes.fill(0, offset, offset + length);
    });
  }

  async flush(): Promise<void> {
    await this.#run("flush", 0, 0, () => this.kept.set(this.bytes));
  }

  close(): void {
    this.#closed = true;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  async #run(name: string, offset: number, length: number, action: () => void): Promise<void> {
    assert(!this.#closed, "Nothing reaches a backend after it was closed");
    checkRange(this.size, offset, length);
    const step = `${name} ${offset}+${length}`;
    await this.#options.step(step);
    if (this.#options.fails(step)) {
      if (name === "flush") this.#lose();
      throw new ConnectionError(`Lost before the ${name}`);
    }
    action();
    const losses = this.#losses;
    this.#options.onDone?.();
    await this.#options.step(`${step} answered`);
    const lost = losses !== this.#losses && name !== "read" || this.#options.fails(step);
    if (lost) throw new ConnectionError(`Lost after the ${name}`);
  }

  #lose(): void {
    this.bytes.set(this.kept);
    this.#losses++;
  }
}
