/**
 * What all stages have in common: the facts of the backend below them, and calls that it can do.
 *
 * @module
 */
import type { Awaitable, Backend, Extent, Traffic, ZeroOptions } from "../backend/backend.ts";

/**
 * A backend over a backend, which belongs to it and is closed with it. Flushes and closing go
 * straight through; a subclass says what becomes of the other calls.
 *
 * What lets others reach the bytes without a call (`memory`, `share`) is not passed on, nor is the
 * promise of `writesAtOnce`: a subclass that keeps them says so.
 */
export abstract class Stage implements Backend {
  readonly size: number;
  readonly blockSize: number;
  readonly durable: boolean;
  readonly readOnly: boolean;
  readonly version?: string;
  readonly regionId?: Uint8Array;
  readonly traffic?: Readonly<Traffic>;
  readonly restsBetweenCalls?: boolean;
  readonly readsUrgently?: boolean;
  readonly zero?: NonNullable<Backend["zero"]>;
  readonly discard?: NonNullable<Backend["discard"]>;
  readonly extents?: NonNullable<Backend["extents"]>;
  /** What the stage stands on. */
  protected readonly backend: Backend;

  /** Takes a backend over; `blockSize` and `size` are those of the stage, where they are others. */
  constructor(
    backend: Backend,
    blockSize: number = backend.blockSize,
    size: number = backend.size,
  ) {
    this.backend = backend;
    this.size = size;
    this.blockSize = blockSize;
    this.durable = backend.durable;
    this.readOnly = backend.readOnly;
    const { version, regionId, traffic, restsBetweenCalls, readsUrgently } = backend;
    if (version !== undefined) this.version = version;
    if (regionId !== undefined) this.regionId = regionId;
    if (traffic !== undefined) this.traffic = traffic;
    if (restsBetweenCalls !== undefined) this.restsBetweenCalls = restsBetweenCalls;
    if (readsUrgently !== undefined) this.readsUrgently = readsUrgently;
    if (backend.zero !== undefined) this.zero = this.zeroRange;
    if (backend.discard !== undefined) this.discard = this.discardRange;
    if (backend.extents !== undefined) this.extents = this.findExtents;
  }

  abstract readAt(buffer: Uint8Array, offset: number): Awaitable<void>;

  abstract writeAt(buffer: Uint8Array, offset: number): Awaitable<void>;

  flush(): Awaitable<void> {
    return this.backend.flush();
  }

  close(): Awaitable<void> {
    return this.backend.close();
  }

  /** As {@linkcode close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** {@linkcode Backend.zero} of the stage; called only where the backend has it. */
  protected abstract zeroRange(
    offset: number,
    length: number,
    options?: ZeroOptions,
  ): Awaitable<void>;

  /** {@linkcode Backend.discard} of the stage; called only where the backend has it. */
  protected abstract discardRange(offset: number, length: number): Awaitable<void>;

  /** {@linkcode Backend.extents} of the stage; called only where the backend has it. */
  protected abstract findExtents(offset: number, length: number): Awaitable<Extent[]>;
}
