/**
 * The backend of a managed mount: a remote region behind a cache on this host, put together from
 * the stages of `lib/chunk`.
 *
 * @module
 */
import type { Backend } from "../backend/backend.ts";
import type { ByteRange } from "../backend/range_list.ts";
import { settleAll } from "../backend/settle.ts";
import type { ProfileCounts } from "../chunk/access_recorder.ts";
import { type CacheOptions, CacheStage, type Durability } from "../chunk/cache.ts";
import { CHUNK_SIZE } from "../chunk/chunk_size.ts";
import { openJournal } from "../chunk/journal_file.ts";
import { KeptProfile } from "../chunk/kept_profile.ts";
import { Puller } from "../chunk/pull.ts";
import { openCopyTarget } from "./copy_target.ts";

/** How a remote region is cached; structured-cloneable. */
export interface ManagedOptions {
  /** Bytes of a chunk, a multiple of 4 KiB up to 32 MiB; 64 KiB unless told. */
  chunkSize?: number | undefined;
  /** Requests to the remote that push at a time; by measured latency and rate unless told. */
  pushWorkers?: number | undefined;
  /** Milliseconds between pushes of what is dirty; 20 s unless told, 0 for only when asked. */
  pushInterval?: number | undefined;
  /**
   * What a flush of the mount promises: that what was written survives a loss of power in the cache
   * (`local`, unless told), or that the remote has it and has flushed it (`remote`).
   */
  durability?: Durability | undefined;
  /**
   * A file for the access profile: what it tells of comes first, in its order, before what other
   * options ask for, and nothing else for a second then, unless something else is read. What is read
   * is recorded, and put in its place when the region is closed. Chunks may have another size than
   * when it was recorded.
   */
  profile?: string | undefined;
  /** Refuse writes even where the remote takes them. */
  readOnly?: boolean | undefined;
  /** Give up what the cache holds, also what was not pushed, and begin anew. */
  discardCache?: boolean | undefined;
}

/** How a cache is filled in the background; structured-cloneable. */
export interface FillOptions {
  /** Requests to the remote at a time; by measured latency and rate unless told. */
  workers?: number | undefined;
  /** Start and end in bytes of each range that is to come first, in turn. */
  first?: Float64Array | undefined;
  /** Bytes a second at most. */
  rateLimit?: number | undefined;
}

/** How far a cache is. */
export interface CacheProgress {
  /** Bytes of the region. */
  size: number;
  /** Bytes of it that are in the cache. */
  localBytes: number;
  /** Bytes of chunks that the remote has not got yet. */
  dirtyBytes: number;
  /** Bytes that were pulled in the background since it was mounted. */
  pulledBytes: number;
  /** Bytes a second that the remote answered with lately; 0 where nothing is pulled. */
  rate: number;
  /** The shortest time of a request to the remote, in ms; 0 where nothing is pulled. */
  latency: number;
  /** Whether the cache was closed in order before; else some of it may have been fetched again. */
  closedInOrder: boolean;
  /** How far the access profile was right so far, where there is one. */
  profile?: ProfileCounts;
}

const NOTHING_PULLED = { pulledBytes: 0, rate: 0, latency: 0 };

/** A {@linkcode CacheStage}, as a Worker hosts it. */
export class ManagedBackend extends CacheStage {
  readonly #profile: KeptProfile | undefined;
  #puller: Puller | undefined;

  /** As a {@linkcode CacheStage}, whose reads are recorded in the profile. */
  constructor(options: CacheOptions, profile?: KeptProfile) {
    super(profile ? { ...options, onRead: (from, to) => profile.touch(from, to) } : options);
    this.#profile = profile;
  }

  /** How far it is. */
  get progress(): CacheProgress {
    const { size, localBytes, dirtyBytes, journal } = this.region;
    const { pulledBytes, rate, latency } = this.#puller?.progress ?? NOTHING_PULLED;
    const { closedInOrder } = journal.found;
    const counts = this.#profile && { profile: this.#profile.counts };
    return { size, localBytes, dirtyBytes, pulledBytes, rate, latency, closedInOrder, ...counts };
  }

  /** Whether nothing goes on by itself now, but for timers that may be late by some ms. */
  get atRest(): boolean {
    const { states } = this.region;
    const pulls = this.#puller !== undefined && !this.#puller.isHolding && !states.complete;
    return !pulls && states.dirtyCount === 0 && this.fetcher.flights.count === 0;
  }

  /** Begins to fill the cache in the background, once. */
  fill({ workers, first, rateLimit }: FillOptions): void {
    this.#puller ??= new Puller(this.region, this.fetcher, {
      workers,
      expected: this.#profile?.expected,
      ranges: first && rangesOf(first),
      rateLimit,
    });
  }

  /** Begins to fill the cache, and answers when it is full. Throws what the remote throws for long. */
  async filled(): Promise<void> {
    this.fill({});
    await this.#puller!.complete();
  }

  /** Holds the filling up, or lets it go on. */
  setPaused(paused: boolean): void {
    if (paused) this.#puller?.pause();
    else this.#puller?.resume();
  }

  override async close(): Promise<void> {
    this.#puller?.stop();
    await settleAll([super.close(), this.#profile?.save() ?? Promise.resolve()]);
  }
}

function* rangesOf(bounds: Float64Array): Generator<ByteRange> {
  for (let at = 0; at < bounds.length; at += 2) {
    yield { offset: bounds[at]!, length: bounds[at + 1]! - bounds[at]! };
  }
}

/**
 * Puts a cache before `remote`, which belongs to the answer; `remoteId` tells it from others. A
 * `file:` or `dir:` cache that is not there yet is made. `onLocal` is told of absent bytes
 * `[from, to)` that came to the cache.
 *
 * @throws {UsageError} the cache cannot be one, or belongs to another region; the profile cannot be
 * one.
 * @throws {SystemError} EAGAIN: the cache is in use by another mount.
 */
export async function openManaged(
  remote: Backend,
  remoteId: Uint8Array,
  cacheUrl: string,
  options: ManagedOptions,
  onLocal: (from: number, to: number) => void,
): Promise<ManagedBackend> {
  const { chunkSize = CHUNK_SIZE, durability, readOnly, pushWorkers, pushInterval } = options;
  const { size } = remote;
  const profile = options.profile === undefined
    ? undefined
    : await KeptProfile.open(options.profile, size, chunkSize);
  const local = await openCopyTarget(cacheUrl, size);
  try {
    const journal = await openJournal({
      url: cacheUrl,
      cache: local,
      size,
      chunkSize,
      remote: { id: remoteId, version: remote.version },
      discard: options.discardCache,
    });
    const cache: CacheOptions = {
      remote,
      local,
      chunkSize,
      journal,
      durability,
      readOnly,
      push: { workers: pushWorkers, interval: pushInterval },
      onLocal: (from, to) => onLocal(from * chunkSize, Math.min(to * chunkSize, size)),
    };
    return new ManagedBackend(cache, profile);
  } catch (error) {
    await local.close();
    throw error;
  }
}
