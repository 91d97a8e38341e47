/**
 * Seeders: a mount whose region others can take over while a program uses it.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import { CHUNK_SIZE } from "../chunk/chunk_size.ts";
import { isMapped } from "../device/attach.ts";
import type { SeederStage } from "../migration/seeder_core.ts";
import { type DialOut, dialOut } from "../host/dial_out.ts";
import { BackendHost } from "../host/host.ts";
import { type ListeningPlaces, openPlaces } from "../host/serve.ts";
import { type BackendSource, isBackend } from "../host/source.ts";
import { type HostedMount, type Mount, mountHost, type MountOptions } from "./mount.ts";

/** What a {@linkcode Seeder} calls. Each is waited for. */
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

/** What {@linkcode Seeder.open} seeds, and how. */
export interface SeederOptions extends MountOptions {
  /** The region: a URL, `{ module, options }`, or (path and file only) a Backend object. */
  backend: BackendSource;
  /** Where leechers reach it: `telemap://` or `telemap+unix://` addresses. */
  listen?: string | URL | readonly (string | URL)[];
  /** Where a leecher waits that this side dials, as it cannot be reached itself. */
  dial?: string | URL;
  /** Bytes of the chunks in which writes are noticed, a multiple of 4 KiB; 64 KiB unless told. */
  chunkSize?: number;
  /** What leechers must show. */
  token?: string;
  /** What a `telemap://` backend wants to see. */
  backendToken?: string;
  /** Listen beyond this host although whoever gets there may take the region. */
  insecure?: boolean;
  /** What is called on the way. */
  hooks?: SeederHooks;
}

/** A region that is mounted here, and that one other host may take over. */
export class Seeder implements AsyncDisposable {
  /** The region, to work with until it is suspended. */
  readonly mount: Mount;
  /** Settles when the region was given away. */
  readonly given: Promise<void>;
  /** Settles when whoever has it needs this side no more. */
  readonly released: Promise<void>;
  readonly #host: BackendHost;
  readonly #places: ListeningPlaces | undefined;
  readonly #stage: { now: SeederStage };
  /** The leecher that is dialled. */
  #out: DialOut | undefined;
  #closing: Promise<void> | undefined;

  /**
   * Mounts a region, and lets leechers follow it.
   *
   * ```ts
   * await using seeder = await Seeder.open({
   *   backend: "memory:16MiB",
   *   listen: "telemap://127.0.0.1:0",
   *   as: "file",
   * });
   * console.log(seeder.url, seeder.stage);
   * ```
   *
   * @throws {UsageError} for a backend, address or option that cannot be.
   * @throws {UnsupportedError} where this host has no such device.
   */
  static async open(options: SeederOptions): Promise<Seeder> {
    const { backend, listen, chunkSize = CHUNK_SIZE, token, insecure, backendToken } = options;
    const { device: choice = "auto", as = "path", hooks = {}, dial } = options;
    if (as === "slice" && isBackend(backend)) {
      throw new UsageError("Cannot mount a Backend object as a slice", {
        hint: "give a URL, or { module, options } that a Worker imports",
      });
    }
    if (listen === undefined && dial === undefined) {
      throw new UsageError("Cannot seed a region to nobody", {
        hint: "give an address to listen at, or one to dial",
      });
    }
    const places = listen === undefined ? undefined : openPlaces(listen, {
      ...(token !== undefined && { token }),
      ...(insecure !== undefined && { insecure }),
    });
    let host: BackendHost | undefined;
    try {
      const apart = isMapped({ choice, as });
      host = await BackendHost.startSeeded(backend, { chunkSize, token: backendToken, apart });
      const mount = await mountHost(host, options);
      const seeder = await Seeder.over(host, mount, places, hooks);
      if (dial !== undefined) seeder.#out = await dialOut(host, dial, { token });
      return seeder;
    } catch (error) {
      places?.close();
      await host?.close();
      throw error;
    }
  }

  /** Seeds what a host serves and a mount shows. */
  static async over(
    host: BackendHost,
    mount: HostedMount,
    places: ListeningPlaces | undefined,
    hooks: SeederHooks,
  ): Promise<Seeder> {
    const stage: { now: SeederStage } = { now: "serving" };
    const given = Promise.withResolvers<void>(), released = Promise.withResolvers<void>();
    const enter = (now: SeederStage) => {
      stage.now = now;
      if (now === "given" || now === "released") given.resolve();
      if (now === "released") released.resolve();
    };
    enter(
      await host.seed({
        suspend: async () => await hooks.onSuspend?.(),
        resume: async () => await hooks.onResume?.(),
        throttle: async (rate) => await hooks.onThrottle?.(rate ?? Infinity),
        flush: async () => {
          await hooks.onFlush?.();
          await mount.writeBack();
        },
      }, (now) => {
        enter(now);
        hooks.onStage?.(now);
      }),
    );
    await places?.serve(host);
    return new Seeder(host, mount, places, stage, given.promise, released.promise);
  }

  private constructor(
    host: BackendHost,
    mount: Mount,
    places: ListeningPlaces | undefined,
    stage: { now: SeederStage },
    given: Promise<void>,
    released: Promise<void>,
  ) {
    this.#host = host;
    this.mount = mount;
    this.#places = places;
    this.#stage = stage;
    this.given = given;
    this.released = released;
  }

  /** Where leechers reach it; throws where they do not, as it dials. */
  get url(): string {
    if (this.#places !== undefined) return this.#places.urls[0]!;
    throw new UsageError("Cannot give the address of a seeder that dials");
  }

  /** Where the handover is. */
  get stage(): SeederStage {
    return this.#stage.now;
  }

  /**
   * Has the program go on here, if it was suspended for somebody.
   *
   * @throws {TelemapError} EBUSY: the region was given away.
   */
  async takeBack(): Promise<void> {
    await this.#host.takeBack();
  }

  /** Takes the mount away, and lets nobody follow any more. Again: waits for the same. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  /** As {@linkcode close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#places?.close();
    await this.#out?.close();
    await this.mount.close();
  }
}
