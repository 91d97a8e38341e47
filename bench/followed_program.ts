/**
 * What a program loses while it is followed: asked for what it has written, again and again. Nothing is
 * copied, as it is no matter of tracking to share cores with who copies.
 *
 * @module
 */
import { setTimeout as delay } from "node:timers/promises";
import { CHUNK_SIZE } from "../lib/chunk/chunk_size.ts";
import { SeederClient } from "../lib/migration/seeder_client.ts";
import type { RemoteBackend } from "../lib/rpc/client.ts";
import { openBackend } from "../mod.ts";
import type { Slowdown } from "./migration_table.ts";
import type { MovedProcess } from "./moved_process.ts";
import { median } from "./statistics.ts";

/** How its speed is measured: so often, for so many ms each. */
const SPEEDS = 10, SPEED_MS = 150;
/** How its rate is measured: in so many pairs, for so many ms each. */
const PAIRS = 4, RATE_MS = 300;
/** Between questions for what was written, in ms, beside the round trip: what copying it takes. */
const COPYING_MS = 50;
/** The same of a standby that nobody waits for. */
const STANDBY_MS = 1000;

/**
 * Share of its rate that a program loses which writes at that, while it is asked as often as rounds
 * would: in turns with itself while nobody asks.
 */
export async function lossAtRate(program: MovedProcess, rtt: number): Promise<number> {
  await using follower = await Follower.open(program.url);
  const losses: number[] = [];
  for (let pair = 0; pair < PAIRS; pair++) {
    const alone = await rateOf(program);
    const followed = await follower.askDuring(COPYING_MS + rtt, () => rateOf(program));
    losses.push(1 - followed / alone);
  }
  return median(losses);
}

/** Pages a ms that the program writes. */
async function rateOf(program: MovedProcess): Promise<number> {
  const before = await program.ask("written"), start = performance.now();
  await delay(RATE_MS);
  const after = await program.ask("written");
  return (after - before) / (performance.now() - start);
}

/**
 * Shares of its speed that a program loses which writes as quickly as it can. The machine is faster at
 * one time than at another: so it takes turns with a program that nobody follows, of which it has some
 * share of the speed before and while it is followed.
 */
export async function lossFlatOut(
  program: MovedProcess,
  control: MovedProcess,
  rtt: number,
): Promise<Slowdown> {
  const shareOfControl = async () => {
    const shares: number[] = [];
    for (let turn = 0; turn < SPEEDS; turn++) {
      const speed = await program.ask(`speed ${SPEED_MS}`);
      shares.push(speed / await control.ask(`speed ${SPEED_MS}`));
    }
    return median(shares);
  };
  // Both are compiled by then.
  await shareOfControl();
  const alone = await shareOfControl();
  await using follower = await Follower.open(program.url);
  const asStandby = 1 - await follower.askDuring(STANDBY_MS, shareOfControl) / alone;
  const byRounds = 1 - await follower.askDuring(COPYING_MS + rtt, shareOfControl) / alone;
  return { asStandby, byRounds };
}

/** Somebody who asks for what was written, and copies none of it. */
class Follower implements AsyncDisposable {
  readonly #region: RemoteBackend;
  readonly #client: SeederClient;
  readonly #trackId: Uint8Array;
  #since: number;

  static async open(url: string): Promise<Follower> {
    const region = await openBackend(url) as RemoteBackend;
    const client = new SeederClient(region, crypto.getRandomValues(new Uint8Array(16)));
    const { trackId, generation } = await client.track({ chunkSize: CHUNK_SIZE });
    return new Follower(region, client, trackId, generation);
  }

  private constructor(
    region: RemoteBackend,
    client: SeederClient,
    trackId: Uint8Array,
    since: number,
  ) {
    this.#region = region;
    this.#client = client;
    this.#trackId = trackId;
    this.#since = since;
  }

  /** Asks, with pauses of so many ms, until something is over. */
  async askDuring(pause: number, something: () => Promise<number>): Promise<number> {
    const stop = new AbortController();
    const asking = (async () => {
      while (!stop.signal.aborted) {
        const told = await this.#client.dirty({ trackId: this.#trackId, generation: this.#since });
        this.#since = told.generation;
        await delay(pause, undefined, { signal: stop.signal }).catch(() => {});
      }
    })();
    const figure = await something();
    stop.abort();
    await asking;
    return figure;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.cancel({ epoch: 0 });
    await this.#region.close();
  }
}
