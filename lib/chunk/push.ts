/**
 * Brings dirty chunks back to the remote: every so often, when asked, and when too much is dirty.
 *
 * A round copies each chunk that is dirty, sends it, and has the remote flush; only then it is
 * clean. Rounds follow one another, so whoever waits for one that began after his call knows that
 * all that was written before it is at the remote.
 *
 * @module
 */
import { extentsOf, writeZeroes } from "../backend/backend.ts";
import { ClosedError, UsageError } from "../backend/errors.ts";
import { GroupCommit } from "../backend/group_commit.ts";
import type { CachedRegion } from "./cached_region.ts";
import { writeChunks } from "./chunk_content.ts";
import type { ChunkFetcher } from "./fetch.ts";
import { FlightWindow } from "./flight_window.ts";
import { Flights } from "./flights.ts";
import { Breather, pauseFor } from "./pause.ts";
import { dirtyRuns, type PushRun } from "./push_runs.ts";

/** How dirty chunks go to the remote. */
export interface PushOptions {
  /** Requests in flight at a time, at least one; by measured latency and rate unless told. */
  workers?: number | undefined;
  /** Milliseconds between rounds; default 20 000. With 0 chunks are pushed only when asked. */
  interval?: number | undefined;
  /**
   * Share of the region, up to 1, that may be dirty; default 0.5, but a GiB in any region. At half
   * of that a round begins, and beyond it writes wait.
   */
  dirtyLimit?: number | undefined;
  /**
   * The remote flushes after so many bytes, even while more are sent, so that writes that wait can
   * go on; default 64 MiB.
   */
  flushBytes?: number | undefined;
  /** Milliseconds before a failed round is tried again, the first time; default 100. */
  retryPause?: number | undefined;
  /** Takes a line for people when pushing begins to fail or works again; default `console.warn`. */
  log?: ((line: string) => void) | undefined;
  /** Told of chunks `[from, to)` that became clean, or are dirty again by now. */
  onPushed?: ((from: number, to: number) => void) | undefined;
}

/** What becomes of dirty chunks. */
export interface DirtySink {
  /** Answers when all that was written before is where it belongs. Throws what keeps it from that. */
  sync(): Promise<void>;
  /** A promise for writes to chunks `[from, to)` that have to wait until less is dirty. */
  room(from: number, to: number): Promise<void> | undefined;
  /** Begins nothing any more. */
  stop(): void;
  /** Answers when nothing is under way any more, after {@linkcode stop}. */
  idle(): Promise<void>;
}

const INTERVAL_MS = 20_000;
const DIRTY_SHARE = 0.5;
/** With less owed than a second or so of a good network sends, nobody has to wait. */
const DIRTY_LEAST = 1 << 30;
const FLUSH_BYTES = 64 << 20;
/** A failed round is tried again so often, after a pause that grows. */
const TRIES = 3;
const PAUSE_MS = 100;
/** How long the only request in flight gives way to reads, in ms. */
const GIVE_WAY_MS = 20;

/** See the module. */
export class Pusher implements DirtySink {
  readonly #region: CachedRegion;
  readonly #fetcher: ChunkFetcher;
  readonly #options: PushOptions;
  readonly #window: FlightWindow;
  readonly #rounds = new GroupCommit(() => this.#round(), { retries: true });
  #underWay = false;
  /** So many chunks may be dirty. */
  readonly #limit: number;
  readonly #interval: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Where the next round begins to look for dirty chunks. */
  #start = 0;
  /** Copies that the remote has, but has not flushed. */
  #sent: PushRun[] = [];
  #sentBytes = 0;
  #flushing = false;
  /** Flushes that failed. */
  #losses = 0;
  /** Whether chunks became clean that the journal may show as dirty. */
  #uncommitted = false;
  #failing = false;
  /** Writes that wait until less is dirty. */
  #waiting: PromiseWithResolvers<void> | undefined;
  readonly #stopped = new AbortController();

  /**
   * Begins to push every so often. Throws {@linkcode UsageError} on options that are out of range.
   */
  constructor(
    region: CachedRegion,
    fetcher: ChunkFetcher,
    options: PushOptions = {},
  ) {
    const { workers, interval = INTERVAL_MS, dirtyLimit = DIRTY_SHARE } = options;
    if (!((workers ?? 1) >= 1 && interval >= 0 && dirtyLimit > 0 && dirtyLimit <= 1)) {
      throw new UsageError("Cannot push like that", {
        hint: "expected 1 worker or more, an interval of 0 ms or more, a dirty limit up to 1",
      });
    }
    this.#region = region;
    this.#fetcher = fetcher;
    this.#options = options;
    this.#window = new FlightWindow({ requestBytes: region.requestBytes, workers });
    const least = options.dirtyLimit === undefined ? DIRTY_LEAST / region.chunkSize : 1;
    this.#limit = Math.max(Math.ceil(region.states.count * dirtyLimit), least);
    this.#interval = interval;
    this.#wait();
  }

  /**
   * Answers when all that was written before is at the remote and flushed there. Throws what the
   * remote, or the cache, throws after some tries.
   */
  sync(): Promise<void> {
    return this.#rounds.run();
  }

  /** A promise for writes to chunks `[from, to)` that have to wait until less is dirty. */
  room(from: number, to: number): Promise<void> | undefined {
    const { states } = this.#region;
    if (states.dirtyCount * 2 < this.#limit || states.allDirty(from, to)) return;
    if (states.dirtyCount < this.#limit) {
      if (!this.#underWay) void this.#roundInBackground();
      return;
    }
    if (this.#waiting === undefined) {
      this.#waiting = Promise.withResolvers();
      // One that is under way may be past what is dirty by now.
      void this.#roundInBackground();
    }
    return this.#waiting.promise;
  }

  /** Begins no further round, and ends the one that is under way soon. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#stopped.abort();
    this.#release(new ClosedError("Cannot write as the cache was closed"));
  }

  /** Answers when no round is under way any more, after {@linkcode stop}. */
  async idle(): Promise<void> {
    // One that begins now is over at once, and begins behind all others.
    await this.#rounds.run().catch(() => {});
  }

  async #round(): Promise<void> {
    this.#underWay = true;
    try {
      await this.#pushAllInTries();
      this.#release();
      await this.#commit();
    } catch (error) {
      this.#release(error);
      throw error;
    } finally {
      this.#underWay = false;
    }
  }

  async #pushAllInTries(): Promise<void> {
    const { signal } = this.#stopped;
    let pause = this.#options.retryPause ?? PAUSE_MS;
    for (let left = TRIES - 1;; left--, pause *= 4) {
      try {
        return await this.#pushAll();
      } catch (error) {
        if (left === 0 || signal.aborted) throw error;
        await pauseFor(pause, signal);
      }
    }
  }

  /** Records what became clean: whoever relies on that is told so only afterwards. */
  async #commit(): Promise<void> {
    if (!this.#uncommitted) return;
    this.#uncommitted = false;
    try {
      await this.#region.commit();
    } catch (error) {
      this.#uncommitted = true;
      throw error;
    }
  }

  /** Pushes each chunk that is dirty now. Stops at the first failure, and throws it. */
  async #pushAll(): Promise<void> {
    this.#region.checkOpen();
    await this.#fetcher.completePartial();
    const { flushBytes = FLUSH_BYTES } = this.#options;
    const flights = new Flights(), breather = new Breather();
    for await (const run of dirtyRuns(this.#region, this.#start)) {
      await this.#turn(flights);
      await breather.breathe();
      if (flights.failure !== undefined || this.#region.closed) break;
      const bytes = run.zero ? 0 : this.#region.offsetOf(run.to) - this.#region.offsetOf(run.from);
      flights.add(this.#send(run, bytes), bytes);
      this.#window.began(bytes, performance.now());
      if (this.#sentBytes >= flushBytes && !this.#flushing) flights.add(this.#flush(), 0);
    }
    await flights.landed();
    if (this.#sent.length > 0) flights.add(this.#flush(), 0);
    await flights.landed();
    if (flights.failure !== undefined) throw flights.failure.error;
    this.#region.checkOpen();
  }

  /** Answers when another request may be sent: one at a time while somebody waits for a read. */
  async #turn(flights: Flights): Promise<void> {
    const { urgent } = this.#region;
    while (flights.count > 0) {
      const delay = urgent.count > 0
        ? Infinity
        : this.#window.delay(flights.count, flights.bytes, performance.now());
      if (delay === 0) break;
      await (delay === Infinity ? flights.landing() : flights.landingWithin(delay));
    }
    if (urgent.count > 0) await urgent.calm(GIVE_WAY_MS);
  }

  /** Sends copies of dirty chunks: they are sent then, or dirty as before. */
  async #send(run: PushRun, bytes: number): Promise<void> {
    const { states, requestChunks } = this.#region;
    const { from, to, zero } = run;
    const losses = this.#losses;
    try {
      if (!zero || !await this.#sendZeroes(from, to)) {
        for (let at = from; at < to; at += requestChunks) {
          await this.#sendCopy(at, Math.min(at + requestChunks, to));
        }
      }
    } catch (error) {
      states.notPushed(from, to);
      // The others first, lest one that the remote never takes keeps them from it.
      this.#start = to % states.count;
      throw error;
    }
    // What the remote took of it before may be gone; it is told by then, to the flush that failed.
    if (losses !== this.#losses) return states.notPushed(from, to);
    this.#sent.push(run);
    this.#sentBytes += bytes;
  }

  /** Sends a request's worth of chunks as they are while nobody changes them. */
  async #sendCopy(from: number, to: number): Promise<void> {
    const { states, lock, local, remote, buffers, chunkSize } = this.#region;
    const offset = this.#region.offsetOf(from);
    const content = buffers.take(this.#region.offsetOf(to) - offset);
    await lock.exclusive(from, to, () => {
      this.#region.checkOpen();
      states.copied(from, to);
      return local.readAt(content, offset);
    });
    const startedAt = performance.now();
    await writeChunks(remote, content, offset, chunkSize);
    this.#window.answered(content.length, startedAt, performance.now());
    buffers.give(content);
  }

  /** Zeroes any number of chunks at the remote; answers false where they are no longer zeroes. */
  async #sendZeroes(from: number, to: number): Promise<boolean> {
    const { states, lock, local, remote } = this.#region;
    const offset = this.#region.offsetOf(from), length = this.#region.offsetOf(to) - offset;
    const zero = await lock.exclusive(from, to, async () => {
      this.#region.checkOpen();
      states.copied(from, to);
      return (await extentsOf(local, offset, length)).every((extent) => extent.zero);
    });
    if (zero) await writeZeroes(remote, offset, length);
    return zero;
  }

  /** Makes what was sent durable at the remote, and then clean. One is under way at a time. */
  async #flush(): Promise<void> {
    const { states, remote } = this.#region;
    const covered = this.#sent;
    this.#sent = [];
    this.#sentBytes = 0;
    this.#flushing = true;
    try {
      await remote.flush();
    } catch (error) {
      // A remote reports what it lost once: nothing that is there unflushed can be relied on.
      for (const { from, to } of [...covered, ...this.#sent]) states.notPushed(from, to);
      this.#sent = [];
      this.#losses++;
      throw error;
    } finally {
      this.#flushing = false;
    }
    for (const { from, to } of covered) {
      states.pushed(from, to);
      this.#options.onPushed?.(from, to);
    }
    this.#uncommitted = true;
    if (states.dirtyCount < this.#limit) this.#release();
  }

  /** Lets the writes go on that wait, or fails them. */
  #release(error?: unknown): void {
    if (error === undefined) this.#waiting?.resolve();
    else this.#waiting?.reject(error);
    this.#waiting = undefined;
  }

  #wait(): void {
    if (this.#interval === 0 || this.#stopped.signal.aborted) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#roundInBackground(), this.#interval);
    Deno.unrefTimer(this.#timer);
  }

  async #roundInBackground(): Promise<void> {
    clearTimeout(this.#timer);
    let failure: { error: unknown } | undefined;
    try {
      await this.#rounds.run();
    } catch (error) {
      failure = { error };
    }
    this.#tell(failure);
    // What was pulled meanwhile outlives a crash then; where that fails, a flush or a sync tells.
    if (this.#region.unrecorded) await this.#region.commit().catch(() => {});
    this.#wait();
  }

  /** Tells people when pushing in the background begins to fail, and when it works again. */
  #tell(failure: { error: unknown } | undefined): void {
    if (this.#stopped.signal.aborted || (failure !== undefined) === this.#failing) return;
    this.#failing = failure !== undefined;
    const log = this.#options.log ?? console.warn;
    if (failure === undefined) log("Pushing to the remote works again");
    else log(`Cannot push to the remote, trying on: ${messageOf(failure.error)}`);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
