/**
 * A stage whose writes can be slowed to a rate, so that somebody who copies the region keeps up with
 * who writes it.
 *
 * @module
 */
import type { Awaitable, Backend, Extent, ZeroOptions } from "../backend/backend.ts";
import { Pace } from "./pace.ts";
import { pauseFor } from "./pause.ts";
import { Stage } from "./stage.ts";

/** So much may be written at once after a pause, in ms of the rate. */
const KEPT_MS = 10;

/** See the module. Without a rate every call goes straight through. */
export class SlowStage extends Stage {
  #pace: Pace | undefined;
  #changed = new AbortController();
  /** Writes go on in the order in which they came. */
  #turn: Promise<void> = Promise.resolve();

  /** Over `backend`, which belongs to it. */
  constructor(backend: Backend) {
    super(backend);
  }

  /** Whether writes may have to wait. */
  get isSlow(): boolean {
    return this.#pace !== undefined;
  }

  /** Bytes a second that may be written from now on; `Infinity` for as many as come. */
  slow(rate: number): void {
    const perMs = rate / 1000;
    this.#pace = rate === Infinity
      ? undefined
      : new Pace({ rate: perMs, most: perMs * KEPT_MS, least: 0 });
    this.#changed.abort();
    this.#changed = new AbortController();
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    return this.backend.readAt(buffer, offset);
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    if (this.#pace === undefined) return this.backend.writeAt(buffer, offset);
    return this.#inTime(buffer.length, () => this.backend.writeAt(buffer, offset));
  }

  override close(): Awaitable<void> {
    this.slow(Infinity);
    return super.close();
  }

  protected zeroRange(offset: number, length: number, options?: ZeroOptions): Awaitable<void> {
    const zero = () => this.backend.zero!(offset, length, options);
    return this.#pace === undefined ? zero() : this.#inTime(length, zero);
  }

  protected discardRange(offset: number, length: number): Awaitable<void> {
    const discard = () => this.backend.discard!(offset, length);
    return this.#pace === undefined ? discard() : this.#inTime(length, discard);
  }

  protected findExtents(offset: number, length: number): Awaitable<Extent[]> {
    return this.backend.extents!(offset, length);
  }

  async #inTime(bytes: number, write: () => Awaitable<void>): Promise<void> {
    const turn = this.#turn.then(() => this.#earned(bytes));
    this.#turn = turn;
    await turn;
    await write();
  }

  /** Answers when so many bytes may be written. */
  async #earned(bytes: number): Promise<void> {
    for (;;) {
      const now = performance.now(), delay = this.#pace?.delay(now) ?? 0;
      if (delay === 0) return this.#pace?.use(bytes, now);
      await pauseFor(delay, this.#changed.signal);
    }
  }
}
