/**
 * What seeders have in common, whether one region is mounted of their host or the parts of a group.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import { CHUNK_SIZE } from "../chunk/chunk_size.ts";
import { countChunks } from "../chunk/chunk_states.ts";
import { type DialOut, dialOut } from "../host/dial_out.ts";
import type { BackendHost } from "../host/host.ts";
import { type ListeningPlaces, openPlaces, type ServeOptions } from "../host/serve.ts";
import type { SeederStage } from "../migration/seeder_core.ts";
import { formatAddress, parseAddress } from "../net/address.ts";
import { Closing } from "./closing.ts";
import type { HostedMount } from "./mount.ts";

/** What a {@linkcode Seeding} calls. Each is waited for. */
export interface SeederHooks {
  /** The program is to write no more: somebody takes the region over, or asks whether he can. */
  onSuspend?: () => void | Promise<void>;
  /** The region was not given after all: the program goes on. */
  onResume?: () => void | Promise<void>;
  /**
   * What was written is about to be copied: a program that keeps some of the region elsewhere is to
   * write it now.
   */
  onFlush?: () => void | Promise<void>;
  /**
   * The program is to write no more than so many bytes a second, `Infinity` for as it likes, as a
   * leecher with the strategy `throttle` does not keep up with it. What is written by a device is
   * slowed by itself; memory cannot be.
   */
  onThrottle?: (rate: number) => void | Promise<void>;
  /** Told of every change of the stage. */
  onStage?: (state: SeederStage) => void;
}

/** Whom a region is seeded to, and how. */
export interface SeedingOptions {
  /** Where leechers reach it: `telemap://` or `telemap+unix://` addresses. */
  listen?: string | URL | readonly (string | URL)[];
  /** Where a leecher waits that this side dials, as it cannot be reached itself. */
  dial?: string | URL;
  /** Bytes of the chunks in which writes are noticed, a multiple of 4 KiB; 64 KiB unless told. */
  chunkSize?: number;
  /** What leechers must show. */
  token?: string;
  /** What `telemap://` backends want to see. */
  backendToken?: string;
  /** Listen beyond this host although whoever gets there may take the region. */
  insecure?: boolean;
  /** What is called on the way. */
  hooks?: SeederHooks;
}

/** What is mounted of a host, as far as seeding and leeching have to do with it. */
export type Mounted = Pick<HostedMount, "writeBack" | "close">;

/** What a {@linkcode Seeding} is made of. */
export interface SeedingState {
  /** The host of the region. */
  readonly host: BackendHost;
  /** What is mounted of it. */
  readonly mounted: Mounted;
  /** Where it listens. */
  readonly places: ListeningPlaces | undefined;
  /** Where the handover is. */
  readonly stage: { now: SeederStage };
  /** See `Seeding.given`. */
  readonly given: Promise<void>;
  /** See `Seeding.released`. */
  readonly released: Promise<void>;
}

/** Begins to listen for leechers. Throws `UsageError` for an address where none can follow. */
export function openLeecherPlaces(
  listen: string | URL | readonly (string | URL)[],
  options: ServeOptions,
): ListeningPlaces {
  for (const url of [listen].flat() as (string | URL)[]) {
    const address = parseAddress(url);
    if (address.protocol === "telemap") continue;
    throw new UsageError(`Cannot have leechers follow at ${formatAddress(address)}`, {
      hint: "expected an address of the form telemap://HOST:PORT/NAME",
    });
  }
  return openPlaces(listen, options);
}

/** Lets leechers follow what a host serves and is mounted of it. */
export async function beginSeeding(
  host: BackendHost,
  mounted: Mounted,
  places: ListeningPlaces | undefined,
  hooks: SeederHooks,
): Promise<SeedingState> {
  const stage: { now: SeederStage } = { now: "serving" };
  const given = Promise.withResolvers<void>(), released = Promise.withResolvers<void>();
  const enter = (now: SeederStage) => {
    stage.now = now;
    if (now === "given" || now === "released") given.resolve();
    if (now === "released") released.resolve();
  };
  const { writeBack } = mounted;
  const flush = async () => {
    await hooks.onFlush?.();
    await writeBack?.();
  };
  enter(
    await host.seed({
      suspend: async () => await hooks.onSuspend?.(),
      resume: async () => await hooks.onResume?.(),
      throttle: async (rate) => await hooks.onThrottle?.(rate ?? Infinity),
      flush: hooks.onFlush === undefined && writeBack === undefined ? undefined : flush,
    }, (now) => {
      enter(now);
      hooks.onStage?.(now);
    }),
  );
  await places?.serve(host);
  return { host, mounted, places, stage, given: given.promise, released: released.promise };
}

/**
 * Opens a seeder: starts the host, mounts it, and lets leechers follow. Nothing is left behind where
 * one of them throws.
 */
export async function openSeeding<M extends Mounted, S extends Seeding>(
  options: SeedingOptions,
  start: () => Promise<BackendHost>,
  mount: (host: BackendHost) => Promise<M>,
  make: (state: SeedingState, mounted: M) => S,
): Promise<S> {
  const { listen, dial, token, insecure, hooks = {}, chunkSize = CHUNK_SIZE } = options;
  if (listen === undefined && dial === undefined) {
    throw new UsageError("Cannot seed a region to nobody", {
      hint: "give an address to listen at, or one to dial",
    });
  }
  // A leecher would only find that out when it is about to copy.
  countChunks(0, chunkSize);
  const places = listen === undefined ? undefined : openLeecherPlaces(listen, {
    ...(token !== undefined && { token }),
    ...(insecure !== undefined && { insecure }),
  });
  let host: BackendHost | undefined;
  try {
    host = await start();
    const mounted = await mount(host);
    const seeding = make(await beginSeeding(host, mounted, places, hooks), mounted);
    if (dial !== undefined) await seeding.dial(dial, token);
    return seeding;
  } catch (error) {
    places?.close();
    await host?.close();
    throw error;
  }
}

/** A region that is mounted here in some way, and that one other host may take over. */
export abstract class Seeding implements AsyncDisposable {
  /** Settles when the region was given away. */
  readonly given: Promise<void>;
  /** Settles when whoever has it needs this side no more. */
  readonly released: Promise<void>;
  readonly #state: SeedingState;
  /** The leecher that is dialled. */
  #out: DialOut | undefined;
  readonly #closing = new Closing(() => this.#close());

  /** Over what {@linkcode beginSeeding} began. */
  protected constructor(state: SeedingState) {
    this.#state = state;
    this.given = state.given;
    this.released = state.released;
  }

  /** Where leechers reach it; throws where they do not, as it dials. */
  get url(): string {
    const { places } = this.#state;
    if (places !== undefined) return places.urls[0]!;
    throw new UsageError("Cannot give the address of a seeder that dials");
  }

  /** Where the handover is. */
  get stage(): SeederStage {
    return this.#state.stage.now;
  }

  /**
   * Has the program go on here, if it was suspended for somebody.
   *
   * @throws {TelemapError} EBUSY: the region was given away.
   */
  async takeBack(): Promise<void> {
    await this.#state.host.takeBack();
  }

  /** Dials a leecher, until this is closed. */
  async dial(url: string | URL, token: string | undefined): Promise<void> {
    this.#out = await dialOut(this.#state.host, url, { token });
  }

  /**
   * Lets nobody follow any more, and takes away what is mounted; again: waits for the same. Throws
   * `TelemapError` (EBUSY) as `Mount.close` does: then it may be closed again.
   */
  close(): Promise<void> {
    return this.#closing.run();
  }

  /** As {@linkcode close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#state.places?.close();
    await this.#out?.close();
    await this.#state.mounted.close();
  }
}
