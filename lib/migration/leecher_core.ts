/**
 * The destination of a migration, in the isolate that will serve the region: copies it while the
 * program runs at the source, round by round, takes it over, and fetches what is missing then.
 *
 * ```text
 *  copying -> following -> asking -> receiving -> confirming -> owner -> complete
 *     ^           ^          |           |            |
 *     +-----------+----------+-----------+            | the source says so, and nobody else
 *         refused, given up, offer taken back         v
 * ```
 *
 * In `confirming` it does not know whether the region is its own: it asks until the source says so.
 * Nothing may be written here before.
 *
 * @module
 */
import { DeadlineError, errorCode, IntegrityError, UsageError } from "../backend/errors.ts";
import type { ByteRange } from "../backend/range_list.ts";
import { RangeList } from "../backend/range_list.ts";
import { CHUNK_DIGEST_BYTES } from "../chunk/digests.ts";
import type { LockedBackend } from "../chunk/lock.ts";
import type { Puller, PullOptions } from "../chunk/pull.ts";
import type { RemoteBackend } from "../rpc/client.ts";
import { Convergence, type DowntimeGoal } from "./convergence.ts";
import type { Compared, LeechedRegion } from "./leeched_region.ts";
import { countPieces } from "./pieces.ts";
import type { SeederClient } from "./seeder_client.ts";

/** What the core works with. */
export interface LeecherCoreOptions {
  /** The region at the source. */
  remote: RemoteBackend;
  /** Who asks the source. */
  client: SeederClient;
  /** The copy. */
  copy: LeechedRegion;
  /** What keeps everybody else off the copy until it is the region; it is locked. */
  lock: LockedBackend;
  /** What the source said when it began to notice writes. */
  tracked: { trackId: Uint8Array; epoch: number };
  /** Whether the copy may hold something of an earlier time. */
  isOld: boolean;
  /** How chunks are pulled. */
  pull: PullOptions;
  /** The epoch under which the region was taken over before; `recorded`: and that was written down. */
  taken?: { epoch: number; recorded: boolean };
  /** Writes down, durably, where the handover under that epoch is. */
  record: (state: "receiving" | "confirming" | "taken" | "owner", epoch: number) => Promise<void>;
}

/** How a region is taken over. */
export interface FinalizeOptions extends DowntimeGoal {
  /** Milliseconds that the source may take to suspend, and for which it keeps its offer. */
  offerMs: number;
}

/** What a migration came to; times in ms. */
export interface MigrationMetrics {
  /** Where it is. */
  state: LeecherState;
  /** From the beginning to the handover, or until now. */
  totalMs: number;
  /** Rounds of copying what was written. */
  rounds: number;
  /** Bytes of the region. */
  size: number;
  /** Bytes that came over the network. */
  receivedBytes: number;
  /** Bytes of chunks that were copied more than once. */
  repeatedBytes: number;
  /** Bytes that are here. */
  localBytes: number;
  /** The epoch of the handover; 0 before. */
  epoch: number;
  /** The downtime that was predicted at the last look. */
  predictedDowntimeMs: number;
  /** How long the program stood still, as this side saw it, and its parts. */
  downtimeMs: number;
  /** Of it: the program suspended itself. */
  suspendMs: number;
  /** Of it: what it wrote was flushed. */
  flushMs: number;
  /** Of it: what was written last came over. */
  lastSetMs: number;
  /** Of it: the source confirmed. */
  confirmMs: number;
  /** Bytes of the last set. */
  lastSetBytes: number;
  /** What the comparison with the source found at the end, in chunks. */
  compared: Compared;
}

/** See the module. */
export type LeecherState =
  | "copying"
  | "following"
  | "asking"
  | "receiving"
  | "confirming"
  | "owner"
  | "complete";

/** Pieces of the last set that are asked for ahead. */
const PIECES_MOST = 64;
/** How long the source may take to hear that it is needed no more, in ms. */
const DONE_MS = 10_000;
/** Chunks that are compared at a time. */
const COMPARED_AT_ONCE = 64;

/** See the module. */
export class LeecherCore {
  readonly #options: LeecherCoreOptions;
  readonly #start = performance.now();
  #trackId: Uint8Array;
  #epoch: number;
  #generation = 0;
  #puller: Puller | undefined;
  #state: LeecherState = "copying";
  #metrics: MigrationMetrics;
  /** The best rate at which the source answered so far, in bytes a second. */
  #rate = 0;
  /** Of the last look, in ms. */
  #roundTrip = 0;
  /** Pieces of the latest round: the last set is expected to have as many. */
  #pieces = 0;
  #closed = false;
  readonly #copied: Promise<void>;

  /** Begins to copy. */
  constructor(options: LeecherCoreOptions) {
    this.#options = options;
    this.#trackId = options.tracked.trackId;
    this.#epoch = options.tracked.epoch;
    const { size } = options.copy;
    this.#metrics = {
      ...{ state: "copying", totalMs: 0, rounds: 0, size, receivedBytes: 0, repeatedBytes: 0 },
      ...{ localBytes: 0, epoch: 0, predictedDowntimeMs: 0, downtimeMs: 0, suspendMs: 0 },
      ...{ flushMs: 0, lastSetMs: 0, confirmMs: 0, lastSetBytes: 0 },
      compared: { equal: 0, different: 0, left: 0 },
    };
    this.#copied = options.taken === undefined ? this.#copyAll() : this.#goOn(options.taken);
    this.#copied.catch(() => {});
  }

  /** Whether the region is here. */
  get isOwner(): boolean {
    return this.#state === "owner" || this.#state === "complete";
  }

  /** Whether the region is here, and nothing more is to be done. */
  get isOver(): boolean {
    return this.#state === "complete";
  }

  /** How far it is. */
  get metrics(): MigrationMetrics {
    const metrics = this.#metrics;
    const { copy, remote } = this.#options;
    return {
      ...metrics,
      state: this.#state,
      totalMs: this.isOwner ? metrics.totalMs : performance.now() - this.#start,
      receivedBytes: remote.traffic.receivedBytes,
      localBytes: copy.region.localBytes,
    };
  }

  /** Answers when everything was copied once. Throws what the source throws for long. */
  copied(): Promise<void> {
    return this.#copied;
  }

  /**
   * Takes the region over; answers when it may be used here. Where that fails, the program goes on
   * at the source, and this may be tried again.
   *
   * @throws {DeadlineError} what is left did not become small enough, and nothing was forced.
   */
  async finalize(options: FinalizeOptions): Promise<void> {
    if (this.#options.taken !== undefined) return await this.#copied;
    if (this.isOwner) return;
    const force = await this.#converge(options);
    await this.#handOver(options, force);
  }

  /** After {@linkcode finalize}: answers when the source is needed no more. */
  async complete(): Promise<void> {
    if (this.#state === "complete") return;
    if (this.#state !== "owner") throw new UsageError("Cannot complete what was not taken over");
    const { copy, client, record } = this.#options;
    await this.#puller?.complete();
    await this.#compareAll();
    await copy.keepAll();
    await record("owner", this.#epoch);
    // A source whose answer was lost may have gone already; one that did not hear of it stays fenced.
    await client.done({ epoch: this.#epoch }, { timeout: DONE_MS }).catch((error: Error) => {
      console.warn(`Cannot tell the source that it is needed no more: ${error.message}`);
    });
    this.#state = "complete";
    // Whoever was the source may go now.
    await this.#options.remote.close();
  }

  /** Begins nothing more; the source forgets this leecher, unless it was given the region. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#puller?.stop();
    if (this.isOwner) return;
    await this.#options.client.cancel({ timeout: 1000 }).catch(() => {});
  }

  async #copyAll(): Promise<void> {
    if (this.#options.isOld) await this.#adoptAll();
    const start = performance.now(), { absentBytes } = this.#options.copy;
    await this.#pull([]);
    this.#rate = absentBytes / (performance.now() - start) * 1000;
    if (this.#state === "copying") this.#state = "following";
  }

  /** The region was taken over before a restart: what is missing still comes from the source. */
  async #goOn({ epoch, recorded }: { epoch: number; recorded: boolean }): Promise<void> {
    const { copy, lock, record } = this.#options;
    this.#epoch = this.#metrics.epoch = epoch;
    if (!recorded) {
      await this.#adoptAll();
      await copy.own(() => record("taken", epoch));
    }
    this.#state = "owner";
    lock.release();
    this.#fetchRest(new RangeList());
  }

  /** Pulls all that is absent, these ranges first. */
  async #pull(ranges: Iterable<ByteRange>): Promise<void> {
    const { copy, pull } = this.#options;
    this.#puller?.stop();
    if (copy.region.states.complete) return;
    this.#puller = copy.pullFirst(ranges, pull);
    await this.#puller.complete();
  }

  /** Rounds until the goal is met; answers whether to hand over although it is not. */
  async #converge(options: FinalizeOptions): Promise<boolean> {
    const convergence = new Convergence(options);
    const start = performance.now();
    const late = Math.max(options.maxTime, 0);
    if (options.strategy !== "force") await this.#copied;
    else await Promise.race([this.#copied, new Promise((resolve) => setTimeout(resolve, late))]);
    for (;;) {
      const roundTrip = this.#roundTrip = await this.#options.remote.roundTrip();
      const rate = this.#rate = Math.max(this.#rate, this.#puller?.progress.rate ?? 0);
      this.#metrics.predictedDowntimeMs = convergence.predict(roundTrip, rate / 1000);
      switch (convergence.decide(performance.now() - start, roundTrip, rate / 1000)) {
        case "finalize":
          return false;
        case "force":
          return true;
        case "give up":
          throw new DeadlineError(
            `Cannot take the region over within ${options.maxDowntime} ms: about ${
              this.#metrics.predictedDowntimeMs.toFixed(0)
            } ms would be needed`,
            { hint: "allow more, or force it: what is missing is fetched on demand then" },
          );
        case "round":
          convergence.add(await this.#round());
      }
    }
  }

  /** Copies what was written since the last round. */
  async #round(): Promise<{ bytes: number; ms: number }> {
    const start = performance.now();
    const ranges = await this.#askForDirty();
    await this.#options.copy.forget(ranges);
    this.#pieces = countPieces(ranges);
    this.#metrics.rounds++;
    this.#metrics.repeatedBytes += ranges.byteLength;
    await this.#pull(ranges);
    return { bytes: ranges.byteLength, ms: performance.now() - start };
  }

  async #askForDirty(): Promise<RangeList> {
    const all = new RangeList();
    for (;;) {
      try {
        const told = await this.#options.client.dirty({
          trackId: this.#trackId,
          generation: this.#generation,
        });
        this.#generation = told.generation;
        all.addAll(told.ranges);
        if (!told.more) return all;
      } catch (error) {
        if (errorCode(error) !== "ESTALE") throw error;
        await this.#trackAgain();
      }
    }
  }

  /** The source began anew, or forgot about this side: everything here is compared with it. */
  async #trackAgain(): Promise<void> {
    const { client, copy } = this.#options;
    const tracked = await client.track({ chunkSize: copy.region.chunkSize });
    this.#trackId = tracked.trackId;
    this.#epoch = Math.max(this.#epoch, tracked.epoch);
    this.#generation = tracked.generation;
    await this.#adoptAll();
  }

  async #adoptAll(): Promise<void> {
    await this.#eachDigests((from, digests) => this.#options.copy.adopt(from, digests));
  }

  /** Compares what the program has not changed here with the source, which stands still. */
  async #compareAll(): Promise<void> {
    const { compared } = this.#metrics;
    await this.#eachDigests(async (from, digests) => {
      const found = await this.#options.copy.compare(from, digests);
      compared.equal += found.equal;
      compared.different += found.different;
      compared.left += found.left;
    });
    if (compared.different === 0) return;
    throw new IntegrityError(
      `Cannot let go of the source as ${compared.different} chunks differ from it`,
      { hint: "the source still has the region as it was: mount it there, read-only" },
    );
  }

  async #eachDigests(
    action: (from: number, digests: Uint8Array[]) => Promise<unknown>,
  ): Promise<void> {
    const { count } = this.#options.copy.region.states;
    for (let chunk = 0; chunk < count && !this.#closed;) {
      const asked = Math.min(COMPARED_AT_ONCE, count - chunk);
      const { digests } = await this.#options.client.digests({ chunk, count: asked });
      const each = Array.from(
        { length: digests.length / CHUNK_DIGEST_BYTES },
        (_, index) =>
          digests.subarray(index * CHUNK_DIGEST_BYTES, (index + 1) * CHUNK_DIGEST_BYTES),
      );
      await action(chunk, each);
      chunk += each.length;
    }
  }

  async #handOver({ offerMs }: FinalizeOptions, force: boolean): Promise<void> {
    const { client, copy, lock, record } = this.#options;
    const epoch = ++this.#epoch;
    let owned: Promise<void>;
    const asked = performance.now();
    // Written down before the program is suspended: a restart asks what became of it.
    await record("confirming", epoch);
    this.#state = "asking";
    try {
      const pieces = force ? [] : this.#askForPieces(epoch);
      const offer = await client.suspend({
        ...{ trackId: this.#trackId, generation: this.#generation, epoch, timeout: offerMs },
      }, { timeout: offerMs * 3 });
      const offered = performance.now();
      this.#state = "receiving";
      const ranges = offer.ranges;
      await copy.forget(ranges);
      if (offer.more) {
        this.#generation = offer.generation;
        const more = await this.#askForDirty();
        ranges.addAll(more);
        await copy.forget(more);
      }
      for await (const { offset, content } of pieces) {
        if (content.length > 0) await copy.store(offset, content);
      }
      if (!force) await this.#pull(ranges);
      const received = performance.now();
      this.#state = "confirming";
      await this.#confirm(epoch);
      const now = performance.now();
      this.#state = "owner";
      owned = copy.own(() => record("taken", epoch));
      lock.release();
      Object.assign(this.#metrics, {
        epoch,
        totalMs: now - this.#start,
        downtimeMs: now - asked - this.#roundTrip / 2,
        suspendMs: offer.suspendMs,
        flushMs: offer.flushMs,
        lastSetMs: received - offered,
        confirmMs: now - received,
        lastSetBytes: ranges.byteLength,
      });
      this.#metrics.repeatedBytes += force ? 0 : ranges.byteLength;
      if (force) this.#fetchRest(ranges);
    } catch (error) {
      // Whether the region was given is not known then, but where the source says that it was not.
      if (this.#state !== "confirming" || errorCode(error) === "EPERM") await this.#giveUp();
      throw error;
    }
    // The program goes on meanwhile; only what it flushes waits for that.
    owned.catch((error: Error) => {
      console.warn(`Cannot write down that the region is here: ${error.message}`);
    });
  }

  /** Has the region given. A refusal alone decides nothing: only what the source tells of the epoch. */
  async #confirm(epoch: number): Promise<void> {
    const { client } = this.#options;
    try {
      await client.confirm({ epoch });
    } catch (error) {
      if (errorCode(error) !== "EPERM") throw error;
      // Where it is not given to this side, asking burns the epoch: it never will be.
      const told = await client.outcome({ epoch });
      const isGiven = told.state === "given" || told.state === "released";
      if (!isGiven || told.epoch !== epoch || told.leech.toHex() !== client.leech.toHex()) {
        throw error;
      }
    }
  }

  /** Asks for what is expected to be written last, before it is known what that is. */
  #askForPieces(epoch: number): Promise<{ offset: number; content: Uint8Array }>[] {
    const count = Math.min(this.#pieces + 1, PIECES_MOST);
    return Array.from({ length: count }, (_, index) => {
      const piece = this.#options.client.last({ epoch, index });
      // Where the offer fails, so do they.
      piece.catch(() => {});
      return piece;
    });
  }

  /** Of a handover that was forced: what was written last comes first. */
  #fetchRest(ranges: RangeList): void {
    const { copy, pull } = this.#options;
    this.#puller?.stop();
    this.#puller = copy.pullFirst(ranges, pull);
  }

  /** The program is to go on at the source; what was offered is out of date as soon as it does. */
  async #giveUp(): Promise<void> {
    this.#state = "following";
    try {
      await this.#options.client.cancel();
      await this.#options.record("receiving", this.#epoch);
      await this.#trackAgain();
    } catch {
      // The next round finds out.
    }
  }
}
