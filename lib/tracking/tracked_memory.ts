/**
 * Knows what a running WebAssembly instance, or whoever else shares its memory, writes there.
 *
 * @module
 */
import { addressOf } from "../../ffi/libc.ts";
import { pageSize } from "../../ffi/mman.ts";
import { ClosedError, UnsupportedError, UsageError } from "../backend/errors.ts";
import type { RangeList } from "../backend/range_list.ts";
import { type RangeTracking, trackRange, type TrackRangeOptions } from "./range_tracking.ts";
import type { TrackingMethod } from "./write_tracker.ts";

/** How {@linkcode trackMemory} tracks. */
export interface TrackMemoryOptions {
  /** The method; the best that this host has unless told. */
  method?: TrackingMethod;
  /**
   * Whether to use no more than what any user may: true to see what that gives. Unless told, this
   * is so only where more is not permitted.
   */
  userModeOnly?: boolean;
}

/** What is written to a `WebAssembly.Memory`. */
export interface MemoryTracker extends AsyncDisposable {
  /** How writes are noticed. */
  readonly method: TrackingMethod;
  /**
   * Where to read what {@linkcode MemoryTracker.dirty} told: a view of the memory, or, by the method
   * `compare`, of a copy as it was then. Take it anew after each `dirty()`.
   */
  readonly bytes: Uint8Array;
  /**
   * What was written since the last call (at first: since the tracker was made), as ranges of whole
   * pages. From the call on they count as clean: a write that is not in what is read afterwards is
   * in the next answer. Pages by which the memory has grown count as written.
   *
   * @throws {UnsupportedError} the engine moved the memory as it grew.
   * @throws {ClosedError} the tracker is closed.
   */
  dirty(): Promise<RangeList>;
  /** Makes ranges dirty again, such as those that could not be pushed. */
  restore(ranges: RangeList): Promise<void>;
  /** Tracks no more. The memory is as it was before. */
  close(): Promise<void>;
}

/**
 * Tracks what is written to a WebAssembly memory, by its instances or by anyone else, shared or not,
 * while they run. Works for any user where the kernel lets users have userfaultfd or not.
 *
 * The memory grows as it likes. The tracker keeps it from being collected. Not supported: memory
 * that the engine moves as it grows (none with the reservations that V8 makes unless the address
 * space is limited, as by `ulimit -v`), and a second tracker on the same memory, except by the method
 * `compare`. By the method `wp-faults`, where userfaultfd is limited to user mode
 * (`vm.unprivileged_userfaultfd`), a system call that is to write to a clean page fails with EFAULT:
 * read files and sockets into other memory, and copy.
 *
 * ```ts
 * import { trackMemory } from "../../mod.ts";
 *
 * const memory = new WebAssembly.Memory({ initial: 16 });
 * await using tracker = await trackMemory(memory);
 * const copy = new Uint8Array(memory.buffer).slice();
 *
 * new Uint8Array(memory.buffer)[70_000] = 1;
 * for (const { offset, length } of await tracker.dirty()) {
 *   copy.set(tracker.bytes.subarray(offset, offset + length), offset);
 * }
 * ```
 *
 * @throws {UsageError} the memory has no pages yet.
 * @throws {SystemError} the method is not there, or the memory has another tracker (EBUSY).
 */
export async function trackMemory(
  memory: WebAssembly.Memory,
  options: TrackMemoryOptions = {},
): Promise<MemoryTracker> {
  return await TrackedMemory.start(memory, options);
}

class TrackedMemory implements MemoryTracker {
  readonly #memory: WebAssembly.Memory;
  readonly #address: number;
  readonly #tracking: RangeTracking;
  #size: number;
  /** The call before, which the next one waits for. */
  #last: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  static async start(
    memory: WebAssembly.Memory,
    options: TrackRangeOptions,
  ): Promise<TrackedMemory> {
    const size = memory.buffer.byteLength;
    if (size === 0) {
      throw new UsageError("Cannot track a memory without pages", { hint: "grow it first" });
    }
    const range = { address: addressOfMemory(memory), size, pageSize: pageSize() };
    return new TrackedMemory(memory, range, await trackRange(range, options));
  }

  private constructor(
    memory: WebAssembly.Memory,
    { address, size }: { address: number; size: number },
    tracking: RangeTracking,
  ) {
    this.#memory = memory;
    this.#address = address;
    this.#size = size;
    this.#tracking = tracking;
  }

  get method(): TrackingMethod {
    return this.#tracking.method;
  }

  get bytes(): Uint8Array {
    return this.#tracking.copy ?? new Uint8Array(this.#memory.buffer, 0, this.#size);
  }

  dirty(): Promise<RangeList> {
    return this.#inTurn(async () => {
      this.#check();
      const size = this.#memory.buffer.byteLength;
      if (size > this.#size) {
        await this.#tracking.grow(size);
        this.#size = size;
      }
      try {
        return await this.#tracking.collect(() => this.#check());
      } catch (error) {
        // Where the memory moved meanwhile, that is why.
        this.#check();
        throw error;
      }
    });
  }

  restore(ranges: RangeList): Promise<void> {
    return this.#inTurn(async () => await this.#tracking.restore(ranges));
  }

  close(): Promise<void> {
    return this.#closing ??= this.#last.then(() => this.#tracking[Symbol.asyncDispose]());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #inTurn<T>(action: () => Promise<T>): Promise<T> {
    if (this.#closing !== undefined) {
      throw new ClosedError("Cannot use the tracker of a memory after it was closed");
    }
    const result = this.#last.then(action);
    this.#last = result.catch(() => {});
    return await result;
  }

  /** The memory must lie where it did: nothing may look at where it was. */
  #check(): void {
    const address = addressOfMemory(this.#memory);
    if (address === this.#address) return;
    throw new UnsupportedError(
      `Cannot track a memory any more that moved as it grew, from 0x${
        this.#address.toString(16)
      } to 0x${address.toString(16)}`,
      { hint: "give it a maximum, so that the engine reserves all of its addresses at once" },
    );
  }
}

function addressOfMemory(memory: WebAssembly.Memory): number {
  return addressOf(new Uint8Array(memory.buffer));
}
