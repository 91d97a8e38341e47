/**
 * Managed mounts: a remote region behind a cache on this host. What was read or written once is at
 * hand at local speed, the rest is brought in the background, and what is written goes to the
 * remote later.
 *
 * @module
 */
import { DeadlineError, UsageError } from "../backend/errors.ts";
import type { ByteRange } from "../backend/range_list.ts";
import { listPriorities } from "../chunk/pull_order.ts";
import { isMapped } from "../device/attach.ts";
import { within } from "../device/deadline.ts";
import { BackendHost } from "../host/host.ts";
import { CHUNK_SIZE } from "../chunk/chunk_size.ts";
import type { CacheProgress, ManagedOptions } from "../host/managed_backend.ts";
import { type BackendSource, isBackend } from "../host/source.ts";
import { type Mount, mountHost, type MountOptions } from "./mount.ts";

/** What {@linkcode mountManaged} calls. Each is waited for. */
export interface ManagedHooks {
  /** Before what was written is flushed for a sync: the program may bring its own state in order. */
  onBeforeSync?: () => void | Promise<void>;
  /** Before the mount begins to close. */
  onBeforeClose?: () => void | Promise<void>;
  /** When bytes `[offset, offset + length)` have come to the cache; not waited for. */
  onChunkIsLocal?: (offset: number, length: number) => void;
}

/** What {@linkcode mountManaged} mounts, and how. */
export interface ManagedMountOptions extends MountOptions, Omit<ManagedOptions, "readOnly"> {
  /** The remote region: a URL, `{ module, options }`, or (path and file only) a Backend object. */
  remote: BackendSource;
  /** The cache: `file:/path` or `dir:/path`, which is made where it is not there, or `memory:`. */
  local: string | URL;
  /**
   * Requests that fill the cache in the background at a time: by measured latency and rate unless
   * told, 0 for no filling at all.
   */
  pullWorkers?: number;
  /**
   * What comes first, but after what a profile tells of: a priority for each offset in bytes, higher
   * ones first, or ranges in order.
   */
  pullPriority?: ((offset: number) => number) | Iterable<ByteRange>;
  /** Fill the cache before anything appears. */
  pullFirst?: boolean;
  /** Bytes a second that fill the cache at most; what reads ask for is not limited. */
  pullRate?: number;
  /** What a `telemap://` server wants to see. */
  token?: string;
  /** What is called on the way. */
  hooks?: ManagedHooks;
}

/** A remote region that is mounted behind a cache. */
export interface ManagedMount extends Mount {
  /** How far the cache is. */
  progress(): Promise<CacheProgress>;
  /** Answers when all of the region is in the cache. Throws what the remote throws for long. */
  filled(): Promise<void>;
  /** Fills the cache in the background no more, but for what reads ask for. */
  pausePull(): Promise<void>;
  /** Goes on after {@linkcode pausePull}. */
  resumePull(): Promise<void>;
  /** Answers when all that was written before is durable at the remote. */
  sync(): Promise<void>;
  /**
   * Takes the device away, brings what is dirty to the remote, and closes both.
   *
   * @throws {DeadlineError} the remote did not take it within `closeMs`: all is closed, and what
   * was flushed stays in the cache. Mounted with the same cache again, it is pushed then.
   */
  close(): Promise<void>;
}

const CLOSE_MS = 30_000;

/**
 * Mounts a remote region behind a cache. A cache that was used before goes on where it was, also
 * after a crash: what it owes is pushed, what it holds need not be fetched again.
 *
 * ```ts
 * await using mount = await mountManaged({
 *   remote: "pattern:16MiB",
 *   local: "memory:",
 *   as: "slice",
 * });
 * console.log(mount.bytes[4096]);
 * ```
 *
 * @throws {UsageError} for a remote, cache or option that cannot be, or a cache of another region.
 * @throws {SystemError} EAGAIN: the cache is in use by another mount.
 * @throws {UnsupportedError} where this host has no such device.
 */
export async function mountManaged(options: ManagedMountOptions): Promise<ManagedMount> {
  const { remote, local, hooks = {}, token, closeMs = CLOSE_MS } = options;
  if (options.as === "slice" && isBackend(remote)) {
    throw new UsageError("Cannot mount a Backend object as a slice", {
      hint: "the isolate that touches a slice may stop at any access, so it cannot serve it: " +
        "give a URL, or { module, options } that a Worker imports",
    });
  }
  checkFilling(options);
  const { chunkSize, pushWorkers, pushInterval, durability, readOnly, discardCache } = options;
  const cached = { chunkSize, pushWorkers, pushInterval, durability, readOnly, discardCache };
  const host = await BackendHost.startManaged(
    remote,
    `${local}`,
    {
      ...{ token, profile: options.profile, ...cached },
      apart: isMapped({ choice: options.device ?? "auto", as: options.as ?? "path" }),
    },
    (from, to) => hooks.onChunkIsLocal?.(from, to - from),
  );
  try {
    await beginFilling(host, options);
  } catch (error) {
    await host.close();
    throw error;
  }
  const mount = await mountHost(host, options, () => pushAtEnd(host, closeMs));
  return new CachedMount(mount, host, hooks);
}

function checkFilling({ pullWorkers, pullFirst, profile }: ManagedMountOptions): void {
  if (pullWorkers !== 0) return;
  if (pullFirst) {
    throw new UsageError("Cannot fill the cache first without anybody who fills it", {
      hint: "leave out pullWorkers, or pullFirst",
    });
  }
  if (profile !== undefined) {
    throw new UsageError("Cannot bring first what a profile tells of without anybody who does", {
      hint: "leave out pullWorkers, or profile",
    });
  }
}

async function beginFilling(host: BackendHost, options: ManagedMountOptions): Promise<void> {
  const { pullWorkers: workers, pullRate: rateLimit, pullFirst = false } = options;
  if (workers === 0) return;
  await host.fill({ workers, rateLimit, first: orderOf(options, host.facts.size) });
  if (pullFirst) await host.filled();
}

/** Bounds in bytes of the ranges that are to come first. */
function orderOf(
  { pullPriority, chunkSize = CHUNK_SIZE }: ManagedMountOptions,
  size: number,
): Float64Array | undefined {
  if (pullPriority === undefined) return undefined;
  if (typeof pullPriority === "function") {
    const chunks = { count: Math.ceil(size / chunkSize), chunkSize };
    return listPriorities(pullPriority, chunks).map((chunk) => Math.min(chunk * chunkSize, size));
  }
  return Float64Array.from(
    [...pullPriority].flatMap(({ offset, length }) => [offset, offset + length]),
  );
}

/** Brings what is dirty to the remote; nobody writes any more. */
async function pushAtEnd(host: BackendHost, closeMs: number): Promise<void> {
  const { dirtyBytes } = await host.progress();
  if (dirtyBytes === 0 || await within(closeMs, host.sync().then(() => true))) return;
  throw new DeadlineError(
    `Cannot bring ${dirtyBytes} bytes to the remote within ${closeMs / 1000} s`,
    {
      hint: "what was flushed stays in the cache: mount with it again when the remote is there",
    },
  );
}

class CachedMount implements ManagedMount {
  readonly #mount: Mount;
  readonly #host: BackendHost;
  readonly #hooks: ManagedHooks;
  #closing: Promise<void> | undefined;

  constructor(mount: Mount, host: BackendHost, hooks: ManagedHooks) {
    this.#mount = mount;
    this.#host = host;
    this.#hooks = hooks;
  }

  get path(): string {
    return this.#mount.path;
  }

  get device(): Mount["device"] {
    return this.#mount.device;
  }

  get reason(): string {
    return this.#mount.reason;
  }

  get size(): number {
    return this.#mount.size;
  }

  get durable(): boolean {
    return this.#mount.durable;
  }

  get readOnly(): boolean {
    return this.#mount.readOnly;
  }

  get closed(): Promise<Error | undefined> {
    return this.#mount.closed;
  }

  get file(): Deno.FsFile {
    return this.#mount.file;
  }

  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#mount.bytes;
  }

  statistics(): ReturnType<Mount["statistics"]> {
    return this.#mount.statistics();
  }

  progress(): Promise<CacheProgress> {
    return this.#host.progress();
  }

  filled(): Promise<void> {
    return this.#host.filled();
  }

  pausePull(): Promise<void> {
    return this.#host.setPaused(true);
  }

  resumePull(): Promise<void> {
    return this.#host.setPaused(false);
  }

  async sync(): Promise<void> {
    await this.#hooks.onBeforeSync?.();
    await this.#mount.sync();
    await this.#host.sync();
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    try {
      await this.#hooks.onBeforeClose?.();
      await this.#mount.close();
    } catch (error) {
      // One that is in use stays, and may be closed again.
      this.#closing = undefined;
      throw error;
    }
  }
}
