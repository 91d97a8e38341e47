/**
 * Tracks writes by faults that a Worker of its own resolves: the side of the isolate that asks.
 *
 * @module
 */
import { EventFd } from "../../ffi/epoll.ts";
import { close } from "../../ffi/file.ts";
import { openUserfault, UFFD_FEATURE } from "../../ffi/userfault_open.ts";
import { ClosedError, TelemapError } from "../backend/errors.ts";
import { RangeList } from "../backend/range_list.ts";
import type { TrackAnswer, TrackCommand } from "./track_protocol.ts";
import type { TrackedRange } from "./write_tracker.ts";

type Unnumbered<T> = T extends unknown ? Omit<T, "id"> : never;

/** A tracking Worker. Its calls are answered in order. */
export class TrackingWorkerLink implements AsyncDisposable {
  readonly #worker = new Worker(new URL("./track_worker.ts", import.meta.url), { type: "module" });
  readonly #wake = new EventFd();
  readonly #pending = new Map<number, PromiseWithResolvers<TrackAnswer>>();
  #nextId = 1;
  #ended = false;

  /**
   * Begins to track a range: what is written from then on, by any thread. `userModeOnly` as in
   * `openUserfault`.
   *
   * Throws what `openUserfault` throws, and `TelemapError` where the memory cannot be registered
   * (EBUSY: another userfaultfd has it; EINVAL: not memory of a kind that can be).
   */
  static async start(range: TrackedRange, userModeOnly?: boolean): Promise<TrackingWorkerLink> {
    const required = UFFD_FEATURE.PAGEFAULT_FLAG_WP;
    const { fd } = openUserfault(
      userModeOnly === undefined ? { required } : { required, userModeOnly },
    );
    const link = new TrackingWorkerLink();
    try {
      await link.#call({ command: "track", fd, wakeFd: link.#wake.fd, range });
    } catch (error) {
      close(fd);
      link.#end(new ClosedError("The tracking Worker did not start"), true);
      throw error;
    }
    return link;
  }

  private constructor() {
    this.#worker.onmessage = ({ data }: MessageEvent<TrackAnswer>) => this.#receive(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      // Its reactor may wait on another thread: that ends, and leaves the descriptor open.
      this.#wake.signal();
      this.#end(new ClosedError(`The tracking Worker failed: ${event.message}`), false);
    };
  }

  /** Collects what was written. */
  async collect(): Promise<RangeList> {
    const { bounds } = await this.#call({ command: "collect" });
    return RangeList.fromBounds(bounds!);
  }

  /** Makes ranges dirty again. */
  async restore(ranges: RangeList): Promise<void> {
    await this.#call({ command: "restore", bounds: ranges.bounds() });
  }

  /** Tracks on with memory that has grown to `size` bytes; what is new counts as written. */
  async grow(size: number): Promise<void> {
    await this.#call({ command: "grow", size });
  }

  /** Tracks no more, and ends the Worker. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended) return;
    try {
      await this.#call({ command: "close" });
    } finally {
      this.#end(new ClosedError("The tracking of memory was closed"), true);
    }
  }

  async #call(command: Unnumbered<TrackCommand>): Promise<TrackAnswer> {
    if (this.#ended) throw new ClosedError("Cannot track writes as the tracking Worker has ended");
    const id = this.#nextId++;
    const pending = Promise.withResolvers<TrackAnswer>();
    this.#pending.set(id, pending);
    this.#worker.postMessage({ ...command, id });
    if (command.command !== "track") this.#wake.signal();
    const answer = await pending.promise;
    if (answer.error === undefined) return answer;
    throw new TelemapError(answer.error.code, answer.error.message);
  }

  #receive(answer: TrackAnswer): void {
    this.#pending.get(answer.id)?.resolve(answer);
    this.#pending.delete(answer.id);
  }

  #end(error: Error, closeWake: boolean): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#worker.terminate();
    if (closeWake) this.#wake[Symbol.dispose]();
    for (const pending of this.#pending.values()) pending.reject(error);
    this.#pending.clear();
  }
}
