/**
 * The destination of a migration, in the isolate that will serve the region: copies it while the
 * program runs at the source, round by round, takes it over as `target_handover.ts` says, and fetches
 * what is missing then.
 *
 * @module
 */
import { ClosedError, DeadlineError, errorCode, UsageError } from "../backend/errors.ts";
import type { ByteRange } from "../backend/range_list.ts";
import { RangeList } from "../backend/range_list.ts";
import type { LockedBackend } from "../chunk/lock.ts";
import { pauseFor } from "../chunk/pause.ts";
import type { Puller, PullOptions } from "../chunk/pull.ts";
import type { RemoteBackend } from "../rpc/client.ts";
import { Convergence, type DowntimeGoal } from "./convergence.ts";
import { LatencyHistogram } from "./fault_latency.ts";
import { compareFinally } from "./final_comparison.ts";
import { LastSet, type Link } from "./last_set.ts";
import type { LeechedRegion } from "./leeched_region.ts";
import { leecherStateOf, type MigrationMetrics } from "./migration_metrics.ts";
import type { SeederClient } from "./seeder_client.ts";
import {
  givenElsewhere,
  type TargetCopy,
  TargetDriver,
  type TargetOffer,
} from "./target_driver.ts";
import type { TargetRecord, TargetStep } from "./target_handover.ts";
import { type Tracked, TrackedSource } from "./tracked_source.ts";
import { Turns } from "./turns.ts";

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
  tracked: Tracked;
  /** Whether the copy may hold something of an earlier time. */
  isOld: boolean;
  /** How chunks are pulled. */
  pull: PullOptions;
  /** What the program is expected to touch first here: it is copied before all else. */
  expected?: Iterable<ByteRange> | undefined;
  /** Where it begins: by the record that was found, or following. */
  start: TargetStep;
  /** Writes down, durably, where the handover under that epoch is. */
  record: (state: TargetRecord | "receiving", epoch: number, promoted: boolean) => Promise<void>;
}

/** How a region is taken over. */
export interface FinalizeOptions extends DowntimeGoal {
  /** Milliseconds that the source may take to suspend, and for which it keeps its offer. */
  offerMs: number;
}

/** How to hand over: without what is missing yet, and confirming before what was written last is here. */
interface Decided {
  force: boolean;
  ahead: boolean;
}

/** What a copy lacks that became the region without the word of its source. */
export interface Missing {
  /** Bytes that never came, or are known to have been written at the source since. */
  bytes: number;
  /** What was written at the source within the last so many ms is not known at all. */
  milliseconds: number;
}

/** A round that goes on is waited for so long at least, in ms. */
const TURN_MOST_MS = 3000;
/** Requests stand in a queue at the source for so long while nobody reads here, in ms. */
const QUEUE_MS = 40;
/** Between rounds that find nothing, in ms. */
const IDLE_MS = 10;
/** How long the source may take to hear that it is needed no more, in ms. */
const DONE_MS = 10_000;
/** How long a source may take to hear that this side gives up, in ms. */
const CANCEL_MS = 1000;
/** Writes stay slowed for so long after they were asked to be, in ms. */
const THROTTLE_MS = 30_000;

/** See the module. */
export class LeecherCore {
  readonly #options: LeecherCoreOptions;
  readonly #source: TrackedSource;
  readonly #driver: TargetDriver;
  readonly #lastSet: LastSet;
  readonly #start = performance.now();
  readonly #metrics: Omit<MigrationMetrics, "state" | "faults">;
  readonly #faults = new LatencyHistogram();
  readonly #closed = new AbortController();
  #puller: Puller | undefined;
  /** The best rate at which the source answered so far, in bytes a second. */
  #rate = 0;
  /** Of the last look, and the shortest since the region is to be taken over, in ms. */
  #roundTrip = 0;
  #shortestTrip = 0;
  #handover = { force: false, askedAt: 0, preparedMs: 0, offeredAt: 0, receivedAt: 0 };
  #isCopied = false;
  #copied = Promise.withResolvers<void>();
  /** Whether copying has failed: whoever takes over has it begin anew. */
  #copyFailed = false;
  #completing: Promise<void> | undefined;
  /** When the last round began that is over: what is here is as of then. */
  #asOf = -Infinity;
  /** One round or handover at a time. */
  readonly #turns = new Turns();

  /** Begins to copy, or goes on where it was. */
  constructor(options: LeecherCoreOptions) {
    const { client, copy, tracked, start } = options;
    this.#options = options;
    this.#metrics = {
      ...{ totalMs: 0, rounds: 0, size: copy.size, receivedBytes: 0, repeatedBytes: 0 },
      ...{ zeroBytes: 0, localBytes: 0, lagMs: 0, lagBytes: 0, epoch: 0, promoted: false },
      ...{ predictedDowntimeMs: 0, downtimeMs: 0, suspendMs: 0, flushMs: 0, lastSetMs: 0 },
      ...{ confirmMs: 0, lastSetBytes: 0, throttledRate: 0 },
      ...{ compared: { equal: 0, different: 0, left: 0 }, root: "" },
    };
    const { chunkSize, states: { count: chunks } } = copy.region;
    this.#source = new TrackedSource(client, { chunkSize, chunks }, tracked);
    this.#lastSet = new LastSet(client, copy);
    this.#driver = new TargetDriver(client, this.#target(), start);
    this.#driver.start();
  }

  /** Whether the region is here. */
  get isOwner(): boolean {
    return this.#driver.owns;
  }

  /** Whether the region is here, and nothing more is to be done. */
  get isOver(): boolean {
    return this.#driver.state.at === "owner";
  }

  /** How far it is. */
  get metrics(): MigrationMetrics {
    const { copy: { region }, remote } = this.#options, metrics = this.#metrics;
    const now = performance.now();
    return {
      ...metrics,
      state: leecherStateOf(this.#driver.state, this.#isCopied),
      totalMs: this.isOwner ? metrics.totalMs : now - this.#start,
      receivedBytes: remote.traffic.receivedBytes,
      localBytes: region.localBytes,
      zeroBytes: region.zeroBytes,
      lagBytes: this.isOwner ? 0 : region.size - region.localBytes,
      lagMs: this.isOwner ? 0 : now - Math.max(this.#asOf, this.#start),
      faults: this.#faults.latency,
    };
  }

  /** Answers when everything was copied once. Throws what the source throws for long. */
  copied(): Promise<void> {
    return this.#copied.promise;
  }

  /**
   * Goes on with rounds, one every so many ms, until the region is taken over. Throws what copying
   * throws; it may be tried again.
   *
   * @throws {FencedError} the source gave the region to somebody else.
   */
  async follow(interval: number): Promise<void> {
    await this.#copied.promise;
    const { signal } = this.#closed;
    const isFollowing = () => !signal.aborted && this.#driver.state.at === "following";
    while (isFollowing()) {
      await this.#turns.take(async () => {
        if (isFollowing()) await this.#round();
      }).catch((error) => {
        if (!signal.aborted) throw error;
      });
      await pauseFor(interval, signal);
    }
    if (this.#driver.state.at === "lost") throw givenElsewhere();
  }

  /**
   * Takes the region over; answers when it may be used here. Where that fails, the program goes on
   * at the source, and this may be tried again.
   *
   * @throws {DeadlineError} what is left did not become small enough, and nothing was forced.
   * @throws {FencedError} the source gave the region to somebody else.
   */
  finalize(options: FinalizeOptions): Promise<void> {
    const finalize = async () => {
      await this.#driver.settled();
      if (this.isOwner) return;
      try {
        await this.#handOver(options, await this.#converge(options));
      } catch (error) {
        await this.#unthrottle();
        throw error;
      }
    };
    // A round may wait for a source that is lost.
    return this.#turns.takeWithin(Math.max(options.maxTime, TURN_MOST_MS), finalize, () => {
      return new DeadlineError("Cannot take the region over: its source does not answer", {
        hint: "try again; or where it is gone for good, promote the copy without it",
      });
    });
  }

  /**
   * Makes the copy the region as it is, as the source is gone for good; answers with what it lacks.
   * Where the source comes back all the same, there are two regions.
   */
  async promote(): Promise<Missing> {
    const { copy, lock, remote } = this.#options;
    const { lagMs: milliseconds } = this.metrics;
    const bytes = copy.absentBytes;
    if (this.isOver) return { bytes: 0, milliseconds: 0 };
    this.#closed.abort(closed());
    this.#puller?.stop();
    // What waits for the source fails, and nothing of it is taken any more.
    await remote.close();
    await this.#driver.promote();
    await this.#turns.over();
    await copy.keepAll({ asItIs: true });
    this.#metrics.promoted = true;
    this.#metrics.epoch = this.#driver.state.epoch;
    this.#metrics.totalMs = performance.now() - this.#start;
    lock.release();
    return { bytes, milliseconds };
  }

  /** After {@linkcode finalize}: answers when the source is needed no more. */
  async complete(): Promise<void> {
    if (this.isOver && this.#completing === undefined) return;
    if (!this.isOwner) throw new UsageError("Cannot complete what was not taken over");
    this.#completing ??= this.#complete().finally(() => this.#completing = undefined);
    await this.#completing;
  }

  async #complete(): Promise<void> {
    const { client, copy, remote } = this.#options;
    await this.#puller?.complete();
    const compared = this.#metrics.compared = { equal: 0, different: 0, left: 0 };
    this.#metrics.root = await compareFinally({
      ...{ client, copy, compared, source: this.#source, epoch: this.#driver.state.epoch },
      signal: this.#closed.signal,
    });
    await copy.keepAll();
    await this.#driver.whole();
    // A source whose answer was lost may have gone already; one that did not hear of it stays fenced.
    if (!await this.#driver.done(DONE_MS)) {
      console.warn("Cannot tell the source that it is needed no more: it does not answer");
    }
    this.#driver.stop();
    // Whoever was the source may go now.
    await remote.close();
  }

  /**
   * Begins nothing more; the source forgets this leecher, unless it was given the region. Again: does
   * nothing.
   */
  async close(): Promise<void> {
    this.#closed.abort(closed());
    this.#puller?.stop();
    if (!this.isOwner) await this.#driver.cancel(CANCEL_MS);
    // Of one that became the owner meanwhile.
    this.#puller?.stop();
    this.#driver.stop();
  }

  get #link(): Link {
    return { rate: this.#rate / 1000, roundTrip: this.#shortestTrip };
  }

  /** What the driver has done with the copy. */
  #target(): TargetCopy {
    const { copy, record } = this.#options;
    return {
      record: (state, epoch, promoted) => {
        const write = () => record(state, epoch, promoted);
        return state === "confirming" || promoted ? write() : copy.own(write);
      },
      askAhead: (epoch) => {
        if (this.#handover.force) return;
        this.#lastSet.askAhead(epoch, this.#link);
      },
      receive: (offer) => this.#receive(offer),
      follow: () => this.#follow(),
      distrust: () => this.#adoptAll(),
      own: (epoch) => this.#own(epoch),
      stop: () => this.#puller?.stop(),
    };
  }

  /** Copies all the first time; again, what was offered is out of date as soon as it is taken back. */
  async #follow(): Promise<void> {
    const { record, start } = this.#options;
    const isFirst = this.#asOf === -Infinity;
    if (!isFirst || start.state.at !== "following") {
      await record("receiving", this.#driver.state.epoch, false);
    }
    if (!isFirst) {
      await this.#source.track();
      return await this.#adoptAll();
    }
    this.#asOf = performance.now();
    // In the background: the driver does not wait for that.
    this.#beginToCopy();
  }

  #beginToCopy(): void {
    if (this.#copyFailed) this.#copied = Promise.withResolvers();
    const { promise, resolve, reject } = this.#copied;
    this.#copyFailed = false;
    promise.catch(() => this.#copyFailed = true);
    this.#copyAll().then(resolve, reject);
  }

  async #copyAll(): Promise<void> {
    if (this.#options.isOld) await this.#adoptAll();
    const start = performance.now(), { absentBytes } = this.#options.copy;
    const { expected } = this.#options;
    // Nobody reads it yet for whom the rest would have to be held back, or who would wait behind it.
    await this.#pull([], { expected, restPause: 0, queueMs: QUEUE_MS });
    this.#rate = absentBytes / (performance.now() - start) * 1000;
    this.#isCopied = true;
  }

  /** Pulls all that is absent, these ranges first. */
  async #pull(ranges: Iterable<ByteRange>, more: PullOptions = {}): Promise<void> {
    const { copy, pull } = this.#options;
    this.#puller?.stop();
    if (copy.region.states.complete) return;
    this.#puller = copy.pullFirst(ranges, { ...pull, ...more });
    await this.#puller.complete();
  }

  /** Rounds until the goal is met, or is not going to be. */
  async #converge(options: FinalizeOptions): Promise<Decided> {
    const { remote, client } = this.#options;
    const convergence = new Convergence(options);
    let start = performance.now();
    const late = Math.max(options.maxTime, 0);
    this.#roundTrip = this.#shortestTrip = await remote.roundTrip();
    if (this.#copyFailed) this.#beginToCopy();
    if (options.strategy !== "force") {
      await this.#copied.promise;
      // There is nothing to try before.
      start = performance.now();
    } else await Promise.race([this.#copied.promise, pauseFor(late, this.#closed.signal)]);
    if (this.#isCopied) this.#lastSet.prepare(this.#link);
    for (;;) {
      this.#closed.signal.throwIfAborted();
      const roundTrip = this.#roundTrip;
      const rate = this.#rate = Math.max(this.#rate, this.#puller?.progress.rate ?? 0);
      this.#metrics.predictedDowntimeMs = convergence.predict(roundTrip, rate / 1000);
      const decision = convergence.decide(performance.now() - start, roundTrip, rate / 1000);
      switch (decision) {
        case "finalize":
        case "force": {
          const ahead = convergence.confirm(roundTrip, rate / 1000) === "ahead";
          return { force: decision === "force", ahead };
        }
        case "give up":
          throw this.#tooMuch(options);
        case "throttle": {
          const slowed = this.#metrics.throttledRate = convergence.throttle();
          await client.throttle({ rate: slowed, milliseconds: THROTTLE_MS }).catch((error) => {
            // Of a source that was started again: the next round begins to follow it.
            if (errorCode(error) !== "ESTALE") throw error;
          });
        }
      }
      // Meanwhile, lest more is written until the answer comes.
      const looking = remote.roundTrip();
      looking.catch(() => {});
      const round = await this.#round();
      // One in which the source looks for what was written takes longer.
      this.#roundTrip = await looking;
      this.#shortestTrip = Math.min(this.#shortestTrip, this.#roundTrip);
      convergence.add(round);
      // Only the network may get better then, and not at once.
      if (round.bytes === 0) await pauseFor(IDLE_MS, this.#closed.signal);
    }
  }

  #tooMuch({ maxDowntime }: FinalizeOptions): DeadlineError {
    const predicted = this.#metrics.predictedDowntimeMs.toFixed(0);
    return new DeadlineError(
      `Cannot take the region over within ${maxDowntime} ms: about ${predicted} ms would be needed`,
      { hint: "allow more, or force it: what is missing is fetched on demand then" },
    );
  }

  /** Where nothing comes of it: the program is not to stay slow. */
  async #unthrottle(): Promise<void> {
    if (this.#metrics.throttledRate === 0) return;
    this.#metrics.throttledRate = 0;
    const none = { rate: 0, milliseconds: 1 };
    await this.#options.client.throttle(none, { timeout: CANCEL_MS }).catch(() => {});
  }

  /** Copies what was written since the last round. */
  async #round(): Promise<{ bytes: number; ms: number }> {
    const start = performance.now();
    const ranges = await this.#dirty();
    this.#metrics.repeatedBytes += await this.#options.copy.forget(ranges);
    this.#lastSet.expect(ranges);
    this.#metrics.rounds++;
    await this.#pull(ranges, { queueMs: QUEUE_MS });
    this.#asOf = start;
    return { bytes: ranges.byteLength, ms: performance.now() - start };
  }

  async #dirty(): Promise<RangeList> {
    for (;;) {
      const ranges = await this.#source.dirty();
      if (ranges !== undefined) return ranges;
      await this.#adoptAll();
    }
  }

  async #adoptAll(): Promise<void> {
    const adopt = (from: number, digests: Uint8Array[]) => this.#options.copy.adopt(from, digests);
    await this.#source.eachDigests(adopt, this.#closed.signal);
    this.#source.compared();
  }

  async #handOver({ offerMs }: FinalizeOptions, { force, ahead }: Decided): Promise<void> {
    const { trackId, generation, epoch } = this.#source.tracked;
    const askedAt = performance.now();
    this.#handover = { force, askedAt, preparedMs: 0, offeredAt: 0, receivedAt: 0 };
    // What is on its way is there by the time that the program goes on here.
    if (force) this.#options.copy.fetcher.endPlacing();
    const next = Math.max(epoch, this.#driver.state.epoch) + 1;
    await this.#driver.begin({ epoch: next, trackId, generation, offerMs, ahead });
  }

  async #receive(offer: TargetOffer): Promise<void> {
    const { ranges, more, generation, prepareMs, suspendMs, flushMs } = offer;
    const { copy } = this.#options, handover = this.#handover, metrics = this.#metrics;
    handover.offeredAt = performance.now();
    handover.preparedMs = prepareMs;
    metrics.repeatedBytes += await copy.forget(ranges);
    const all = new RangeList();
    all.addAll(ranges);
    if (more) {
      this.#source.heard(generation);
      const rest = await this.#dirty();
      all.addAll(rest);
      metrics.repeatedBytes += await copy.forget(rest);
    }
    Object.assign(metrics, { suspendMs, flushMs, lastSetBytes: all.byteLength });
    if (handover.force) return this.#fetchRest(all);
    await this.#lastSet.bring(ranges);
    // Nothing is left to pull, unless there was more than an offer can tell, or a connection was lost.
    await this.#pull(all, { rateLimit: undefined });
    handover.receivedAt = performance.now();
  }

  /** The region is here: the program may go on. */
  #own(epoch: number): void {
    const { copy, lock } = this.#options, metrics = this.#metrics;
    metrics.epoch = epoch;
    const { askedAt, preparedMs, offeredAt, receivedAt } = this.#handover;
    const now = performance.now();
    metrics.totalMs = now - this.#start;
    if (offeredAt > 0) {
      const received = receivedAt || offeredAt;
      metrics.downtimeMs = now - askedAt - this.#shortestTrip / 2 - preparedMs;
      metrics.lastSetMs = received - offeredAt;
      metrics.confirmMs = now - received;
    }
    this.#isCopied = true;
    this.#copied.resolve();
    // Who is promoted is made whole first.
    if (this.#driver.state.at === "owner") return;
    copy.onFaulted = (milliseconds) => this.#faults.add(milliseconds);
    lock.release();
    if (!copy.region.states.complete && !this.#handover.force) this.#fetchRest(new RangeList());
  }

  /** What is still to come, these ranges first; nobody waits for it but who needs it. */
  #fetchRest(ranges: RangeList): void {
    const { copy, pull } = this.#options;
    this.#puller?.stop();
    this.#puller = copy.pullFirst(ranges, pull);
  }
}

function closed(): ClosedError {
  return new ClosedError("Cannot go on with a migration that was closed");
}
