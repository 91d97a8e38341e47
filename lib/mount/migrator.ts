/**
 * Migrators: one host's part in the way of a region that moves on and on. It has the region and
 * offers it, or brings it here, takes it over, and offers it in turn.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import type { DialledSource } from "../host/source.ts";
import { type FinalizeRegionOptions, Leecher, type LeecherOptions } from "./leecher.ts";
import type { Mount, MountOptions } from "./mount.ts";
import { Seeder } from "./seeder.ts";
import type { SeederHooks } from "./seeding.ts";

/** Where a {@linkcode Migrator} has a region, and who may take it over there. */
export interface MigratorOptions extends Omit<MountOptions, "readOnly"> {
  /** Where the region lies on this host, or comes to lie. */
  local: string | URL;
  /** Where others reach it while it is here: `telemap://` or `telemap+unix://` addresses. */
  listen: string | URL | readonly (string | URL)[];
  /** What they must show, and what the others want to see. */
  token?: string;
  /** Listen beyond this host although whoever gets there may take the region. */
  insecure?: boolean;
  /** What is called when somebody takes it over from here. */
  hooks?: SeederHooks;
}

/** See the module. */
export class Migrator implements AsyncDisposable {
  readonly #options: MigratorOptions;
  #leecher: Leecher | undefined;
  #seeder: Promise<Seeder> | undefined;

  /**
   * Does nothing yet.
   *
   * ```ts
   * const listen = "telemap://127.0.0.1:0";
   * await using here = new Migrator({ local: "memory:16MiB", listen, as: "file" });
   * const { path } = await here.seed();
   * console.log(path, await here.url());
   * ```
   */
  constructor(options: MigratorOptions) {
    this.#options = options;
  }

  /**
   * The region is here: mounts it, and offers it to others. Throws as {@linkcode Seeder.open} does.
   */
  async seed(): Promise<Mount> {
    this.#checkUnused();
    const { local, ...options } = this.#options;
    this.#seeder = Seeder.open({ ...options, backend: `${local}` });
    return (await this.#seeder).mount;
  }

  /**
   * The region is elsewhere: begins to bring it here. Throws as {@linkcode Leecher.open} does.
   */
  async leech(source: string | URL | DialledSource): Promise<Leecher> {
    this.#checkUnused();
    const { listen: _listen, hooks: _hooks, insecure: _insecure, ...options } = this.#options;
    return this.#leecher = await Leecher.open({ ...options, source } as LeecherOptions);
  }

  /**
   * After {@linkcode leech}: takes the region over, as {@linkcode Leecher.finalize} does. Once all of
   * it is here, it is offered to others.
   */
  async finalize(options: FinalizeRegionOptions = {}): Promise<Mount> {
    const leecher = this.#leecher;
    if (leecher === undefined) throw new UsageError("Cannot take over what is not brought here");
    const mount = await leecher.finalize(options);
    const { listen, token, insecure, hooks } = this.#options;
    this.#seeder ??= leecher.seed({
      listen,
      ...(insecure !== undefined && { insecure }),
      ...(token !== undefined && { token }),
      ...(hooks !== undefined && { hooks }),
    });
    // Whoever asks for its address hears of that.
    this.#seeder.catch(() => {});
    return mount;
  }

  /** Answers where others reach the region, once they can. Throws where they never will. */
  async url(): Promise<string> {
    if (this.#seeder === undefined) throw new UsageError("Cannot offer what is not here");
    return (await this.#seeder).url;
  }

  /** Answers when the region was given away from here. */
  async given(): Promise<void> {
    if (this.#seeder === undefined) throw new UsageError("Cannot give away what is not here");
    await (await this.#seeder).given;
  }

  /** Takes the device away, and offers the region to nobody any more. */
  async close(): Promise<void> {
    // One that was taken over may still be bringing the rest, which ends by that.
    await this.#leecher?.close();
    const seeder = await this.#seeder?.catch(() => undefined);
    await seeder?.close();
  }

  /** As {@linkcode close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #checkUnused(): void {
    if (this.#seeder === undefined && this.#leecher === undefined) return;
    throw new UsageError("Cannot bring or seed a second region by one migrator", {
      hint: "make one for each",
    });
  }
}
