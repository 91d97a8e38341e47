/**
 * Fetches absent chunks from the remote into the cache, each once however many ask for it.
 *
 * @module
 */
import { settleAll } from "../backend/settle.ts";
import type { CachedRegion } from "./cached_region.ts";
import { writeChunks } from "./chunk_content.ts";
import { Flights } from "./flights.ts";
import type { ChunkRun } from "./pull_order.ts";

/** A request to the remote for chunks `[from, to)`. */
interface Request {
  readonly from: number;
  readonly to: number;
  /** Whether nobody waits for it, so that it may be put into the cache aside. */
  readonly aside: boolean;
  /** Whether it is received right where it belongs in the cache. */
  readonly placed: boolean;
  /** First and behind-last chunk of each run in turn whose content is out of date on its way. */
  readonly outdated: number[];
}

/** One that is under way. */
interface Flight extends Request {
  /** Settles when the chunks are local, or could not be had. */
  readonly done: Promise<void>;
}

/** What {@linkcode ChunkFetcher} tells, synchronously. */
export interface FetchListener {
  /** Somebody waits for chunks `[from, to)`, of which some are absent and not on their way. */
  onFault?(from: number, to: number): void;
  /** What somebody waited for since that moment of `performance.now()` is local, or failed. */
  onFaulted?(startedAt: number): void;
  /** The remote answered a request that began at that moment of `performance.now()`. */
  onAnswer?(bytes: number, startedAt: number): void;
}

/** How often somebody relies on a request of others that fails, before making one. */
const JOINS = 3;

/** See the module. Numbers are indexes of chunks. */
export class ChunkFetcher {
  /** Who wants to know. */
  readonly listeners: Set<FetchListener> = new Set();
  /** All requests that are under way. */
  readonly flights: Flights = new Flights();
  readonly #region: CachedRegion;
  readonly #underWay = new Set<Flight>();
  #isPlacing = false;
  #placedFlights = 0;
  /** Whether the last answer was all zeroes: those are no memory to be placed in. */
  #isSparse = false;

  /** Fetches for that region. */
  constructor(region: CachedRegion) {
    this.#region = region;
  }

  /**
   * From now on requests are received right where they belong in the cache, where that can be written
   * so: who writes to a chunk then waits until it is {@linkcode placed}.
   */
  beginPlacing(): void {
    this.#isPlacing = this.#region.local.placeAt !== undefined;
  }

  /** Requests that begin from now on are received aside. */
  endPlacing(): void {
    this.#isPlacing = false;
  }

  /**
   * A promise to wait for where some of the chunks `[from, to)` are being received where they belong,
   * again and again until there is none.
   */
  placed(from: number, to: number): Promise<void> | undefined {
    if (this.#placedFlights === 0) return;
    for (const { placed, done, ...flight } of this.#underWay) {
      if (placed && flight.from < to && from < flight.to) return done.catch(() => {});
    }
  }

  /** Makes all chunks of `[from, to)` local, at once, as somebody waits for them. */
  async fault(from: number, to: number): Promise<void> {
    const { urgent, states } = this.#region;
    const startedAt = performance.now();
    urgent.begin();
    try {
      let absent = states.nextAbsent(from, to);
      while (absent < to && states.isPulling(absent)) absent = states.nextAbsent(absent + 1, to);
      if (absent < to) this.#tell((listener) => listener.onFault?.(absent, to));
      await this.bring(from, to);
    } finally {
      urgent.end();
      this.#tell((listener) => listener.onFaulted?.(startedAt));
    }
  }

  /**
   * Makes all chunks of `[from, to)` local, as {@linkcode start} does with a request. Throws what the
   * remote or the cache's backend throws; the other chunks are local then.
   */
  async bring(from: number, to: number, { aside = false } = {}): Promise<void> {
    for (let joins = 0;; joins++) {
      const { own, others } = this.#begin(from, to, aside);
      const joined = settleAll(others);
      if (joins >= JOINS) await settleAll([...own, joined]);
      else await settleAll([...own, joined.catch(() => {})]);
      if (this.#region.states.allLocal(from, to)) return;
    }
  }

  /** Completes all chunks that are there in part, so that they can be kept or pushed. */
  async completePartial(): Promise<void> {
    const chunks = [...this.#region.partial.chunks()].sort((a, b) => a - b);
    const runs: Promise<void>[] = [];
    for (let index = 0; index < chunks.length;) {
      const from = chunks[index]!;
      let to = from + 1;
      while (chunks[++index] === to) to++;
      runs.push(this.bring(from, to));
    }
    await settleAll(runs);
  }

  /**
   * Requests absent chunks `[from, to)`, at most a request's worth, none of which is on its way. What
   * nobody waits for yet is put into the cache `aside`. Rejects with what the remote or the cache's
   * backend throws.
   */
  start(from: number, to: number, { aside = false } = {}): Promise<void> {
    const { states } = this.#region;
    states.pulling(from, to);
    const placed = this.#isPlacing && !this.#isSparse;
    const request: Request = { from, to, aside, placed, outdated: [] };
    if (placed) this.#placedFlights++;
    const done = this.#fetch(request).finally(() => {
      if (placed) this.#placedFlights--;
      states.notPulling(from, to);
      this.#underWay.delete(flight);
    });
    const flight = { ...request, done };
    this.#underWay.add(flight);
    this.flights.add(done, this.#region.offsetOf(to) - this.#region.offsetOf(from));
    return done;
  }

  /**
   * Makes chunks absent whose content at the remote has changed: also what is on its way now is not
   * taken. Nobody may write to the cache meanwhile, as that would be lost. Answers how many bytes it
   * had of them.
   */
  async forget(runs: readonly ChunkRun[]): Promise<number> {
    const { states, lock, partial } = this.#region;
    let bytes = 0;
    for (const flight of this.#underWay) {
      for (const { from, to } of runs) {
        if (from < flight.to && flight.from < to) flight.outdated.push(from, to);
      }
    }
    for (const { from, to } of runs) {
      // Behind what is being put into the cache at this moment.
      await lock.exclusive(from, to, () => {
        for (let chunk = from; chunk < to; chunk++) {
          partial.delete(chunk);
          if (!states.local.has(chunk)) continue;
          states.dropped(chunk);
          bytes += this.#region.offsetOf(chunk + 1) - this.#region.offsetOf(chunk);
        }
      });
    }
    return bytes;
  }

  /** Requests what of `[from, to)` is neither local nor on its way; finds who fetches the rest. */
  #begin(
    from: number,
    to: number,
    aside: boolean,
  ): { own: Promise<void>[]; others: Promise<void>[] } {
    const { states, requestChunks } = this.#region;
    const own: Promise<void>[] = [], others: Promise<void>[] = [];
    for (let at = states.nextAbsent(from, to); at < to; at = states.nextAbsent(at, to)) {
      const flight = states.isPulling(at) ? this.#flightOf(at) : undefined;
      if (flight !== undefined) {
        others.push(flight.done);
        at = flight.to;
        continue;
      }
      const most = Math.min(at + requestChunks, to);
      let end = at + 1;
      while (end < most && !states.local.has(end) && !states.isPulling(end)) end++;
      own.push(this.start(at, end, { aside }));
      at = end;
    }
    return { own, others };
  }

  #flightOf(chunk: number): Flight | undefined {
    for (const flight of this.#underWay) {
      if (flight.from <= chunk && chunk < flight.to) return flight;
    }
  }

  async #fetch(request: Request): Promise<void> {
    const region = this.#region;
    const { from, to, placed } = request;
    const startedAt = performance.now();
    const offset = region.offsetOf(from), length = region.offsetOf(to) - offset;
    region.checkOpen();
    const content = placed ? region.local.placeAt!(offset, length) : region.buffers.take(length);
    await region.remote.readAt(content, offset);
    this.#tell((listener) => listener.onAnswer?.(content.length, startedAt));
    await region.lock.exclusive(from, to, () => this.#store(content, request));
    if (!placed) region.buffers.give(content);
  }

  #tell(what: (listener: FetchListener) => void): void {
    for (const listener of this.listeners) what(listener);
  }

  /**
   * Puts what the remote has into the cache, but where something was written meanwhile, or the
   * content is out of date. The chunks are held exclusively.
   */
  async #store(
    content: Uint8Array,
    { from, to, aside, placed, outdated }: Request,
  ): Promise<void> {
    const { states, partial, local, chunkSize } = this.#region;
    const start = this.#region.offsetOf(from);
    for (let at = from; at < to;) {
      this.#region.checkOpen();
      let end = at + 1;
      if (states.local.has(at) || isIn(outdated, at)) {
        at = end;
        continue;
      }
      if (partial.has(at)) {
        await this.#fillGaps(content, start, at);
        states.written(at);
      } else {
        while (
          end < to && !states.local.has(end) && !partial.has(end) && !isIn(outdated, end)
        ) end++;
        const run = content.subarray(
          this.#region.offsetOf(at) - start,
          this.#region.offsetOf(end) - start,
        );
        const offset = this.#region.offsetOf(at);
        const zeroBytes = await writeChunks(local, run, offset, chunkSize, { aside, placed });
        this.#region.zeroBytes += zeroBytes;
        this.#isSparse = zeroBytes === content.length;
        for (let chunk = at; chunk < end; chunk++) states.arrived(chunk);
      }
      this.#region.becameLocal(at, end);
      at = end;
    }
  }

  async #fillGaps(content: Uint8Array, start: number, chunk: number): Promise<void> {
    const { partial, local } = this.#region;
    const from = this.#region.offsetOf(chunk), to = this.#region.offsetOf(chunk + 1);
    for (const [at, end] of [...partial.gaps(chunk, from, to)]) {
      await local.writeAt(content.subarray(at - start, end - start), at);
    }
  }
}

/** Whether a chunk lies in one of the runs whose bounds these are. */
function isIn(bounds: readonly number[], chunk: number): boolean {
  for (let at = 0; at < bounds.length; at += 2) {
    if (bounds[at]! <= chunk && chunk < bounds[at + 1]!) return true;
  }
  return false;
}
