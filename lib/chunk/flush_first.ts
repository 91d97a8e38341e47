/**
 * A stage that has its backend flush before anything else is done there.
 *
 * A mount that crashed may have pushed what it did not live to have flushed. Fetched by the next
 * one, such a chunk would be clean in the cache, and another one at the remote when the power goes
 * there. It is to be before all writes, too: a remote tells once, to the flush that comes first,
 * that it lost something, and that has to be the flush of who wrote it.
 *
 * @module
 */
import type { Awaitable, Backend, Extent, ZeroOptions } from "../backend/backend.ts";
import { Stage } from "./stage.ts";

/**
 * Has `backend` flush at once, which belongs to the answer and is closed with it. All calls wait
 * for that; where it fails they try it again, and throw what it throws.
 */
export function flushFirst(backend: Backend): Backend {
  const stage = new FlushFirstStage(backend);
  stage.flushOnce().catch(() => {});
  return stage;
}

class FlushFirstStage extends Stage {
  #flushed = false;
  #flushing: Promise<void> | undefined;

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    return this.#after(() => this.backend.readAt(buffer, offset));
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    return this.#after(() => this.backend.writeAt(buffer, offset));
  }

  override flush(): Awaitable<void> {
    return this.#flushed ? this.backend.flush() : this.flushOnce();
  }

  protected zeroRange(offset: number, length: number, options?: ZeroOptions): Awaitable<void> {
    return this.#after(() => this.backend.zero!(offset, length, options));
  }

  protected discardRange(offset: number, length: number): Awaitable<void> {
    return this.#after(() => this.backend.discard!(offset, length));
  }

  protected findExtents(offset: number, length: number): Awaitable<Extent[]> {
    return this.#after(() => this.backend.extents!(offset, length));
  }

  /** Answers when the backend has flushed once; throws what it throws. */
  flushOnce(): Promise<void> {
    return this.#flushing ??= this.#flush().finally(() => this.#flushing = undefined);
  }

  async #flush(): Promise<void> {
    await this.backend.flush();
    this.#flushed = true;
  }

  #after<T>(action: () => Awaitable<T>): Awaitable<T> {
    return this.#flushed ? action() : this.flushOnce().then(action);
  }
}
