/**
 * What `telemap leech --listen` does beside taking a region over: lets others take it over in turn.
 *
 * @module
 */
import { checkGuarded } from "../lib/host/listen_at.ts";
import { parseAddress } from "../lib/net/address.ts";
import { type ChainOptions, type Seeding, UsageError } from "../mod.ts";
import type { Options, Values } from "./command.ts";
import { HOOK_OPTIONS, seedingHooks } from "./seeding_hooks.ts";
import type { ProgramCommands } from "./shell.ts";

/** The options for it. */
export const CHAIN_OPTIONS = {
  listen: {
    help: "let others take it over in turn, at URL",
    value: "url",
    label: "URL",
    many: true,
  },
  ...HOOK_OPTIONS,
} as const satisfies Options;

/**
 * How others are to take the region over; undefined where they are not. Throws {@linkcode UsageError}
 * for an address that cannot be, before anything is copied.
 */
export function chainOf(
  options: Values<typeof CHAIN_OPTIONS> & { json: boolean; insecure: boolean },
  { token, program }: { token: string | undefined; program: ProgramCommands },
): ChainOptions | undefined {
  const { listen, insecure, suspend, resume, json } = options;
  if (listen.length === 0) {
    if (suspend === undefined && resume === undefined) return undefined;
    throw new UsageError("Cannot suspend for others who cannot take the region over", {
      hint: "add --listen URL, or leave out --suspend and --resume",
    });
  }
  for (const url of listen) checkGuarded(parseAddress(url), { token, insecure });
  const hooks = seedingHooks(program, json);
  return { listen, insecure, hooks, ...(token !== undefined && { token }) };
}

/** A seeder that comes about when a leecher has all of its region. */
export class NextSeeder {
  /** The seeder, once it lets others follow. */
  readonly ready: Promise<Seeding>;
  /** Throws what listening throws; answers never. */
  readonly failed: Promise<never>;
  #seeder: Seeding | undefined;

  /** Comes about by `Leecher.seed` or `LeechedGroup.seed`. */
  constructor(ready: Promise<Seeding>) {
    this.ready = ready.then((seeder) => this.#seeder = seeder);
    this.failed = this.ready.then(() => new Promise<never>(() => {}));
    this.failed.catch(() => {});
  }

  /** Takes away what is mounted, by that of the leecher where there is no seeder yet. */
  async close(leecher: AsyncDisposable): Promise<void> {
    // The addresses first, also where a device is in use then.
    await this.#seeder?.close();
    await leecher[Symbol.asyncDispose]();
    await this.ready.then((seeder) => seeder.close(), () => {});
  }
}
