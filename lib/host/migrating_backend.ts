/**
 * The backend of a region that can move to another host, or comes from one, put together from the
 * stages of `lib/chunk`: whoever uses it goes through a lock, and what is written is noticed.
 *
 * @module
 */
import type { Awaitable, Backend, Extent, ZeroOptions } from "../backend/backend.ts";
import { ClosedError, UsageError } from "../backend/errors.ts";
import { openJournal } from "../chunk/journal_file.ts";
import { lockBackend, type LockedBackend } from "../chunk/lock.ts";
import { Stage } from "../chunk/stage.ts";
import { trackBackend, type TrackedBackend } from "../chunk/track.ts";
import { LeechedRegion } from "../migration/leeched_region.ts";
import { LeecherCore } from "../migration/leecher_core.ts";
import { SeederClient } from "../migration/seeder_client.ts";
import { type SeededProgram, SeederCore } from "../migration/seeder_core.ts";
import type { RemoteBackend } from "../rpc/client.ts";
import { openCopyTarget } from "./copy_target.ts";

/** How a region is seeded; structured-cloneable. */
export interface SeedOptions {
  /** Bytes of a chunk, a multiple of 4 KiB up to 32 MiB. */
  chunkSize: number;
}

/** How a region is leeched; structured-cloneable. */
export interface LeechOptions {
  /** Bytes of a chunk that are asked for; the source decides. */
  chunkSize: number;
  /** 16 random bytes that tell this leecher from others. */
  leech: Uint8Array;
  /** Requests to the source at a time; by measured latency and rate unless told. */
  pullWorkers?: number | undefined;
  /** Bytes a second at most, while the program runs at the source. */
  pullRate?: number | undefined;
}

/** Nobody waits at the lock but while a region is taken over, or is not here yet. */
const HOLD_MS = 2 ** 31 - 1;

/** See the module. */
export class MigratingBackend extends Stage {
  /** What everybody goes through. */
  readonly lock: LockedBackend;
  /** What notices writes. */
  readonly track: TrackedBackend;
  /** Bytes of a chunk. */
  readonly chunkSize: number;
  /** What brings the region here, where it comes from elsewhere. */
  leecher: LeecherCore | undefined;
  /** What gives it away, once {@linkcode seed} was called. */
  seeder: SeederCore | undefined;

  /** Over `backend`, which belongs to it. */
  constructor(backend: Backend, chunkSize: number) {
    const track = trackBackend(backend, { chunkSize });
    const lock = lockBackend(track, { holdTimeout: HOLD_MS });
    super(lock);
    this.lock = lock;
    this.track = track;
    this.chunkSize = chunkSize;
  }

  /** Whether nothing goes on by itself now, but for timers that may be late by some ms. */
  get atRest(): boolean {
    return this.leecher === undefined || this.leecher.isOver;
  }

  /** Lets others take the region over from now on, once. */
  seed(program: SeededProgram): SeederCore {
    if (this.seeder !== undefined) throw new UsageError("Cannot seed a region twice");
    const { lock, track, chunkSize } = this;
    const epoch = this.leecher?.metrics.epoch ?? 0;
    const state = { at: "serving", epoch } as const;
    return this.seeder = new SeederCore({ lock, track, chunkSize, program, state });
  }

  /** Lets go of a copy that will not become the region: nobody sees what is in it. */
  abandon(): void {
    if (this.leecher!.isOwner) return;
    this.lock.refuse(new ClosedError("Cannot read a region that was not taken over"), "reads");
    this.lock.release();
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    return this.backend.readAt(buffer, offset);
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    return this.backend.writeAt(buffer, offset);
  }

  /**
   * As of any stage. While the region is not here yet there is nothing to flush, and once it was given
   * away nothing more is written: neither waits at the lock, nor is refused.
   */
  override flush(): Awaitable<void> {
    if (this.leecher?.isOwner === false) return;
    const stage = this.seeder?.stage;
    return stage === "given" || stage === "released" ? this.track.flush() : super.flush();
  }

  /** Ends what is under way, and closes the region. */
  override async close(): Promise<void> {
    this.seeder?.close();
    await this.leecher?.close();
    await super.close();
  }

  protected zeroRange(offset: number, length: number, options?: ZeroOptions): Awaitable<void> {
    return this.backend.zero!(offset, length, options);
  }

  protected discardRange(offset: number, length: number): Awaitable<void> {
    return this.backend.discard!(offset, length);
  }

  protected findExtents(offset: number, length: number): Awaitable<Extent[]> {
    return this.backend.extents!(offset, length);
  }
}

/**
 * Begins to bring a region from `remote`, which belongs to the answer, into a cache on this host: a
 * `file:` or `dir:` that is made where it is not there, or `memory:`.
 */
export async function openLeeched(
  remote: RemoteBackend,
  cacheUrl: string,
  options: LeechOptions,
): Promise<MigratingBackend> {
  const client = new SeederClient(remote, options.leech);
  const tracked = await client.track({ chunkSize: options.chunkSize });
  const { size, chunkSize } = tracked;
  const local = await openCopyTarget(cacheUrl, size);
  try {
    const journal = await openJournal({
      ...{ url: cacheUrl, cache: local, size, chunkSize, discard: true },
      remote: { id: remote.regionId },
    });
    const isOld = journal.isNew !== true;
    const copy = new LeechedRegion({ remote, local, chunkSize, journal });
    const backend = new MigratingBackend(copy, chunkSize);
    await backend.lock.lock();
    backend.leecher = new LeecherCore({
      ...{ remote, client, copy, lock: backend.lock, tracked, isOld },
      pull: { workers: options.pullWorkers, rateLimit: options.pullRate },
      record: () => Promise.resolve(),
    });
    return backend;
  } catch (error) {
    await local.close();
    throw error;
  }
}
