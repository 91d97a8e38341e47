/**
 * Pulls the chunks of a region into the cache in the background, so that they are there before
 * somebody asks for them.
 *
 * A read that faults does not go through here: it fetches at once, and moves the place from where
 * on chunks are pulled behind itself. Where the remote fails, pulling pauses ever longer and goes
 * on. What somebody is expected to read comes first, and nothing else for a moment then.
 *
 * @module
 */
import { ClosedError, ConnectionError, DeadlineError, UsageError } from "../backend/errors.ts";
import type { ByteRange } from "../backend/range_list.ts";
import type { CachedRegion } from "./cached_region.ts";
import type { ChunkFetcher, FetchListener } from "./fetch.ts";
import { FlightWindow } from "./flight_window.ts";
import { Flights } from "./flights.ts";
import { HeldRest } from "./held_rest.ts";
import { Breather, pauseFor } from "./pause.ts";
import { type ChunkRun, listPriorities, listRanges, PullOrder } from "./pull_order.ts";

/** How chunks are pulled. */
export interface PullOptions {
  /** Requests in flight at a time, at least one; by measured latency and rate unless told. */
  workers?: number | undefined;
  /** Ranges that somebody is expected to read soon, in that order: they are pulled before all others. */
  expected?: Iterable<ByteRange> | undefined;
  /** Milliseconds that all others are held back then, see {@linkcode HeldRest}; default 1000. */
  restPause?: number | undefined;
  /** Of a chunk, by its offset in bytes: higher ones are pulled first. */
  priority?: ((offset: number) => number) | undefined;
  /** Ranges to pull first, in that order, instead of by priority; the rest follows. */
  ranges?: Iterable<ByteRange> | undefined;
  /** Bytes a second to pull at most; what reads fetch is not limited. */
  rateLimit?: number | undefined;
  /**
   * Milliseconds that requests stand in a queue at the remote, lest that has nothing to do where one of
   * both sides is late; 3 unless told. Large reads that are made meanwhile stand behind them.
   */
  queueMs?: number | undefined;
  /** Milliseconds to pause after a failure, the first time; default 100. */
  retryPause?: number | undefined;
  /** Told how far it is, a few times a second, and when all is local. */
  onProgress?: ((progress: PullProgress) => void) | undefined;
  /** Takes a line for people when pulling begins to fail or works again; default `console.warn`. */
  log?: ((line: string) => void) | undefined;
}

/** How far pulling is. */
export interface PullProgress {
  /** Bytes of the region that are local, also what was read or written. */
  readonly localBytes: number;
  /** Bytes of the region. */
  readonly size: number;
  /** Bytes that were pulled in the background. */
  readonly pulledBytes: number;
  /** Bytes a second that the remote answered with lately. */
  readonly rate: number;
  /** The shortest time of a request, in ms. */
  readonly latency: number;
}

const PAUSE_MS = { FIRST: 100, MOST: 5000, REST: 1000 } as const;
/** Who waits for all chunks is told of the failure after so many pauses without anything pulled. */
const PAUSES_IN_VAIN = 5;
const PROGRESS_MS = 100;

/** See the module. */
export class Puller {
  readonly #region: CachedRegion;
  readonly #fetcher: ChunkFetcher;
  readonly #options: PullOptions;
  readonly #window: FlightWindow;
  readonly #order: PullOrder;
  readonly #rest: HeldRest;
  readonly #flights = new Flights();
  readonly #stopped = new AbortController();
  readonly #done: Promise<void>;
  #complete: PromiseWithResolvers<void> | undefined;
  #paused: PromiseWithResolvers<void> | undefined;
  #pulledBytes = 0;
  /** When the rate limit lets the next request go. */
  #goesAt = 0;
  #failure: unknown;
  /** Pauses after failures since something was pulled. */
  #pauses = 0;
  #pauseUntil = 0;
  #toldAt = 0;
  #isHolding = false;

  /** Begins to pull. Throws {@linkcode UsageError} or `RangeError` on options out of range. */
  constructor(region: CachedRegion, fetcher: ChunkFetcher, options: PullOptions = {}) {
    const { workers, priority, ranges, rateLimit, queueMs } = options;
    if (!((workers ?? 1) >= 1 && (rateLimit ?? 1) > 0)) {
      throw new UsageError("Cannot pull like that", {
        hint: "expected 1 worker or more, and a rate limit over 0",
      });
    }
    const { states, chunkSize, requestChunks } = region;
    const layout = { count: states.count, chunkSize };
    const expected = listRanges(options.expected ?? [], layout);
    const wanted = ranges !== undefined
      ? listRanges(ranges, layout)
      : priority && listPriorities(priority, layout);
    this.#region = region;
    this.#fetcher = fetcher;
    this.#options = options;
    this.#window = new FlightWindow({
      ...{ requestBytes: region.requestBytes, workers, queueMs },
      besideUrgent: region.remote.readsUrgently,
    });
    this.#order = new PullOrder(states, requestChunks, { expected, wanted });
    this.#rest = new HeldRest(expected, states.count);
    this.#done = this.#run();
  }

  /** How far it is now. */
  get progress(): PullProgress {
    const { localBytes, size } = this.#region;
    const { rate, latency } = this.#window;
    return { localBytes, size, pulledBytes: this.#pulledBytes, rate, latency };
  }

  /** Whether nothing is under way, and nothing will be for a moment unless somebody asks for it. */
  get isHolding(): boolean {
    return this.#isHolding;
  }

  /**
   * Answers when all chunks are local. Throws what the remote throws where it fails for long, or
   * some chunks cannot be had; pulling goes on. Throws {@linkcode ClosedError} once it is stopped.
   */
  complete(): Promise<void> {
    if (this.#region.states.complete) return Promise.resolve();
    if (this.#stopped.signal.aborted) return Promise.reject(stoppedError());
    this.#rest.release();
    return (this.#complete ??= Promise.withResolvers()).promise;
  }

  /** Begins no more requests until {@linkcode resume}. */
  pause(): void {
    this.#paused ??= Promise.withResolvers();
  }

  /** Goes on after {@linkcode pause}. */
  resume(): void {
    this.#paused?.resolve();
    this.#paused = undefined;
  }

  /** Begins no more requests. */
  stop(): void {
    this.#stopped.abort();
    this.#rest.release();
    this.resume();
    this.#settle(stoppedError());
  }

  /** Answers when nothing is under way any more, after {@linkcode stop} or when all is local. */
  idle(): Promise<void> {
    return this.#done;
  }

  async #run(): Promise<void> {
    const { states } = this.#region;
    const listener: FetchListener = {
      onFault: (from, to) => {
        this.#order.fault({ from, to });
        this.#rest.fault(from, to);
      },
      onAnswer: (bytes, startedAt) => this.#window.answered(bytes, startedAt, performance.now()),
    };
    this.#fetcher.listeners.add(listener);
    const breather = new Breather();
    while (!states.complete) {
      await this.#turn();
      await breather.breathe();
      if (this.#stopped.signal.aborted) break;
      const run = this.#rest.isHeld ? this.#order.nextExpected() : this.#order.next();
      if (run !== undefined) this.#pull(run);
      else if (this.#rest.isHeld) await this.#holdRest();
      else await this.#waitForOthers();
    }
    await this.#flights.landed();
    this.#fetcher.listeners.delete(listener);
    if (states.complete) this.#settle();
    this.#tell(true);
  }

  /** Answers when another request may be begun. */
  async #turn(): Promise<void> {
    const { signal } = this.#stopped;
    const flights = this.#flights;
    for (;;) {
      const { isHeld } = this.#rest;
      const delay = this.#window.delay(flights.count, flights.bytes, performance.now(), isHeld);
      if (delay === 0 || signal.aborted) break;
      await (delay === Infinity ? flights.landing() : flights.landingWithin(delay));
    }
    const wait = Math.max(this.#pauseUntil, this.#goesAt) - performance.now();
    if (wait > 0) await pauseFor(wait, signal);
    while (this.#paused !== undefined) await this.#paused.promise;
  }

  /** All that is expected was requested. Some of it may have to be requested again. */
  async #holdRest(): Promise<void> {
    if (this.#flights.count > 0) return await this.#flights.landing();
    this.#isHolding = true;
    await this.#rest.until(this.#options.restPause ?? PAUSE_MS.REST);
    this.#isHolding = false;
  }

  /** All chunks were looked at: waits for those on their way, and tries those again that failed. */
  async #waitForOthers(): Promise<void> {
    const { flights } = this.#fetcher;
    if (flights.count > 0) await flights.landing();
    else this.#order.restart();
  }

  #pull(run: ChunkRun): void {
    const { from, to } = run;
    const bytes = this.#region.offsetOf(to) - this.#region.offsetOf(from);
    const { rateLimit } = this.#options;
    if (rateLimit !== undefined) {
      this.#goesAt = Math.max(this.#goesAt, performance.now()) + bytes / rateLimit * 1000;
    }
    // Somebody is about to wait for what is expected.
    const pulled = this.#fetcher.start(from, to, { aside: !this.#rest.isHeld }).then(
      () => this.#pulled(bytes),
      (error) => this.#failed(run, error),
    );
    this.#flights.add(pulled, bytes);
    this.#window.began(bytes, performance.now());
  }

  #pulled(bytes: number): void {
    this.#pulledBytes += bytes;
    if (this.#failure !== undefined) this.#log("Pulling from the remote works again");
    this.#failure = undefined;
    this.#pauses = 0;
    this.#tell(false);
  }

  #failed(run: ChunkRun, error: unknown): void {
    if (this.#stopped.signal.aborted) return;
    if (this.#failure === undefined) this.#log(`Cannot pull, trying on: ${messageOf(error)}`);
    this.#failure = error;
    if (isAway(error)) {
      this.#order.again(run);
      return this.#pauseAfterFailure();
    }
    const { from, to } = run;
    if (to - from === 1) {
      this.#region.states.failed(from);
      return this.#pauseAfterFailure();
    }
    // It may be one of them: the others need not wait for it.
    for (let chunk = to - 1; chunk >= from; chunk--) {
      this.#order.again({ from: chunk, to: chunk + 1 });
    }
  }

  #pauseAfterFailure(): void {
    const now = performance.now();
    // What fails while it pauses was begun before: it is the same failure.
    if (now < this.#pauseUntil) return;
    const { retryPause = PAUSE_MS.FIRST } = this.#options;
    this.#pauseUntil = now + Math.min(retryPause * 2 ** this.#pauses, PAUSE_MS.MOST);
    if (++this.#pauses >= PAUSES_IN_VAIN) this.#settle(this.#failure);
  }

  /** Answers those who wait for all chunks. */
  #settle(error?: unknown): void {
    if (error === undefined) this.#complete?.resolve();
    else this.#complete?.reject(error);
    this.#complete = undefined;
  }

  #tell(atOnce: boolean): void {
    const { onProgress } = this.#options;
    const now = performance.now();
    if (onProgress === undefined || !atOnce && now - this.#toldAt < PROGRESS_MS) return;
    this.#toldAt = now;
    onProgress(this.progress);
  }

  #log(line: string): void {
    (this.#options.log ?? console.warn)(line);
  }
}

/** Whether the remote cannot be reached, so that it is not this chunk that is at fault. */
function isAway(error: unknown): boolean {
  return error instanceof ConnectionError || error instanceof DeadlineError;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function stoppedError(): ClosedError {
  return new ClosedError("Cannot pull all of the region as that was stopped");
}
