/**
 * Leechers: bring a region here that a program uses on another host, and take it over.
 *
 * @module
 */
import { ClosedError, UsageError } from "../backend/errors.ts";
import { CHUNK_SIZE } from "../chunk/chunk_size.ts";
import { isMapped } from "../device/attach.ts";
import { BackendHost } from "../host/host.ts";
import type { DialledSource } from "../host/source.ts";
import type { Confirm, Strategy } from "../migration/convergence.ts";
import type { Missing } from "../migration/leecher_core.ts";
import type { MigrationMetrics } from "../migration/migration_metrics.ts";
import { Closing } from "./closing.ts";
import { type HostedMount, type Mount, mountHost, type MountOptions } from "./mount.ts";
import { Seeder } from "./seeder.ts";
import {
  beginSeeding,
  type Mounted,
  openLeecherPlaces,
  type SeederHooks,
  type SeedingState,
} from "./seeding.ts";

/** From where a region comes, and how. */
export interface LeechingOptions {
  /** Where the seeder listens, or `{ listen }` where this side waits for it to dial. */
  source: string | URL | DialledSource;
  /** Where the region comes to lie: `file:/path` or `dir:/path`, which is made, or `memory:`. */
  local: string | URL;
  /** What the seeder wants to see. */
  token?: string;
  /** Requests to the source at a time; by measured latency and rate unless told. */
  pullWorkers?: number;
  /** Bytes a second to copy at most; what was written last is not limited. */
  pullRate?: number;
  /**
   * A file for the access profile: what it tells of is copied first, in its order, and when this is
   * closed it tells in which order the region was read here.
   */
  profile?: string;
}

/** What {@linkcode Leecher.open} brings here, and how. */
export interface LeecherOptions extends Omit<MountOptions, "readOnly">, LeechingOptions {}

/** How {@linkcode Leeching.finalize} takes over; times in ms. */
export interface FinalizeRegionOptions {
  /**
   * How long the program may stand still; 100 unless told. It is less where another round of copying
   * makes it much less.
   */
  maxDowntime?: number;
  /**
   * How long to try at most, once all was copied; with the strategy `force`, from the call on. 60 s
   * unless told.
   */
  maxTime?: number;
  /**
   * What happens where the program writes faster than it can be copied: `wait` (unless told) tries
   * until the time is over; `cancel` gives up once rounds get no smaller; `throttle` has the program's
   * writes slowed ever more then, until the time is over; `force` hands over then, or when the time is
   * over, and fetches what is missing on demand.
   */
  strategy?: Strategy;
  /**
   * When the source commits: `after` all that was written is here, so that the program goes on there if
   * the connection is lost before; or `ahead` of that, which saves a round trip of downtime, and if the
   * connection is lost in that moment the program stands still until it is back. `auto`, unless told:
   * ahead where `maxDowntime` cannot be met otherwise.
   */
  confirm?: Confirm;
  /**
   * How long suspending the program and the offer of the region may take together; then the program
   * goes on at the source. 10 s unless told.
   */
  suspendMs?: number;
}

/** How {@linkcode Leeching.follow} keeps a copy up to date. */
export interface FollowOptions {
  /** Milliseconds between rounds; 1000 unless told. */
  interval?: number;
}

/** How a `seed` lets others take the region over in turn. */
export interface ChainOptions {
  /** Where they reach it. */
  listen: string | URL | readonly (string | URL)[];
  /** What they must show. */
  token?: string;
  /** Listen beyond this host although whoever gets there may take the region. */
  insecure?: boolean;
  /** What is called on the way. */
  hooks?: SeederHooks;
}

const MAX_DOWNTIME_MS = 100;
const MAX_TIME_MS = 60_000;
const SUSPEND_MS = 10_000;
const FOLLOW_MS = 1000;

/** Begins to copy the region of a seeder, or its group, into a host of its own. */
export async function startLeeching(
  options: LeechingOptions,
  { apart, group = false }: { apart: boolean; group?: boolean },
): Promise<BackendHost> {
  const { source, local, token, pullWorkers, pullRate, profile } = options;
  const leech = crypto.getRandomValues(new Uint8Array(16));
  const peer = typeof source === "object" && "listen" in source ? source.listen : source;
  return await BackendHost.startLeeched(source, `${local}`, {
    ...{ leech, peer: `${peer}`, token, pullWorkers, pullRate, profile, chunkSize: CHUNK_SIZE },
    ...{ apart, group },
  });
}

/** What leechers have in common: a region on its way here, of which `T` is mounted. */
export abstract class Leeching<T> implements AsyncDisposable {
  readonly #host: BackendHost;
  readonly #mounted: T;
  readonly #mounts: Mounted;
  #finalized = false;
  readonly #taken = Promise.withResolvers<void>();
  readonly #closing = new Closing(() => this.#close());

  /** Over what a host begins to copy; both of the others are what is mounted of it. */
  protected constructor(host: BackendHost, mounted: T, mounts: Mounted) {
    this.#host = host;
    this.#mounted = mounted;
    this.#mounts = mounts;
    this.#taken.promise.catch(() => {});
  }

  /** How far it is. */
  progress(): Promise<MigrationMetrics> {
    return this.#host.migration();
  }

  /** Answers when all of the region was copied once. */
  copied(): Promise<void> {
    return this.#host.copied();
  }

  /**
   * Keeps the copy up to date, a round every so often, as a warm standby: `lagMs` and `lagBytes` of
   * {@linkcode Leeching.progress} tell how far it is behind. Answers when the region was taken over or
   * this was closed; throws what copying throws.
   */
  follow({ interval = FOLLOW_MS }: FollowOptions = {}): Promise<void> {
    if (interval >= 0 && interval < 2 ** 31) return this.#host.follow(interval);
    throw new UsageError(`Cannot follow a region with a round every ${interval} ms`);
  }

  /**
   * Makes the copy the region as it is, as the source is dead: what it wrote last is missing, and if
   * it comes back all the same, there are two regions. A source that lives is to be asked for it, by
   * {@linkcode Leeching.finalize}.
   */
  async promoteAsSourceIsDead(): Promise<{ mount: T; missing: Missing }> {
    const missing = await this.#host.promote();
    this.#own();
    return { mount: this.#mounted, missing };
  }

  /**
   * Takes the region over: copies what is written until that is little, has the program suspended at
   * the source, and answers with what is mounted when the region is here. Where that fails, the program
   * goes on at the source, and this may be called again.
   *
   * @throws {DeadlineError} it did not become little enough in time.
   * @throws {ClosedError} this was closed meanwhile. Where the region has come here for all that, the hint
   * says so: a leecher with the same `local` takes it over then.
   */
  async finalize(options: FinalizeRegionOptions = {}): Promise<T> {
    await this.#host.finalize({
      maxDowntime: options.maxDowntime ?? MAX_DOWNTIME_MS,
      maxTime: options.maxTime ?? MAX_TIME_MS,
      strategy: options.strategy ?? "wait",
      confirm: options.confirm ?? "auto",
      offerMs: options.suspendMs ?? SUSPEND_MS,
    });
    this.#own();
    return this.#mounted;
  }

  #own(): void {
    // What is mounted goes away by now: who touched it then would wait for ever.
    if (this.#closing.begun) {
      throw new ClosedError("Cannot use a region that came here while it was closed", {
        hint: "go on with the same local copy: it is the region now",
      });
    }
    this.#finalized = true;
    this.#taken.resolve();
  }

  /** After {@linkcode finalize}: answers when everything is here, compared, and the source let go. */
  completed(): Promise<void> {
    return this.#host.completed();
  }

  /**
   * Lets others take the region over in turn, once it is here.
   *
   * @ignore
   */
  protected async seedOn(options: ChainOptions): Promise<SeedingState> {
    const { listen, token, insecure, hooks = {} } = options;
    const places = openLeecherPlaces(listen, {
      ...(token !== undefined && { token }),
      ...(insecure !== undefined && { insecure }),
    });
    try {
      await this.#taken.promise;
      await this.completed();
      return await beginSeeding(this.#host, this.#mounts, places, hooks);
    } catch (error) {
      places.close();
      throw error;
    }
  }

  /**
   * Takes away what is mounted; what was not taken over stays with its source. Throws `TelemapError`
   * (EBUSY) as `Mount.close` does: then it may be closed again.
   */
  close(): Promise<void> {
    return this.#closing.run();
  }

  /** As {@linkcode close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#taken.reject(new ClosedError("Cannot offer a region that was not taken over"));
    if (!this.#finalized) await this.#host.abandon();
    await this.#mounts.close();
  }
}

/** A region on its way here. */
export class Leecher extends Leeching<Mount> {
  readonly #mount: HostedMount;

  /**
   * Begins to copy the region of a seeder, and prepares its device, of which nothing can be read yet.
   *
   * @throws {UsageError} for an address or option that cannot be.
   * @throws {ConnectionError | DeadlineError} there is no seeder there.
   */
  static async open(options: LeecherOptions): Promise<Leecher> {
    const { device: choice = "auto", as = "path" } = options;
    const host = await startLeeching(options, { apart: isMapped({ choice, as }) });
    return new Leecher(host, await mountHost(host, options));
  }

  private constructor(host: BackendHost, mount: HostedMount) {
    super(host, mount, mount);
    this.#mount = mount;
  }

  /**
   * Lets others take the region over in turn, from the same device. It listens at once, and answers when
   * all of the region is here; it may be called before {@linkcode Leecher.finalize}.
   *
   * @throws {UsageError} for an address that cannot be.
   * @throws {SystemError} where listening fails (EADDRINUSE, EACCES, …).
   * @throws {ClosedError} this was closed before it took the region over.
   */
  async seed(options: ChainOptions): Promise<Seeder> {
    return new Seeder(await this.seedOn(options), this.#mount);
  }
}
