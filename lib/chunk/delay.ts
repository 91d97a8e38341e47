/**
 * A stage that makes a backend as far, slow and faulty as one behind a bad network: for tests and
 * trials, not for regions that anyone depends on.
 *
 * A call takes half a round trip to the backend and half a round trip back. What it carries takes
 * its turn on a link of a limited rate, one for each way: the bytes of writes on the way there, those
 * of reads on the way back. All is computed in times that were to be; a timer that is late delays one
 * answer and none after it, so that answers come within a millisecond of their time as long as the
 * machine keeps up, and a link is used up by many calls at once whatever the round trip. Nothing is
 * ever faster than it should be, but for what a link that was idle may be ahead: a quarter of a
 * millisecond of its rate.
 *
 * Which calls fail, how much longer one takes and when the link is silent follow from the seed, and
 * from how many calls came before. Opening and closing are not delayed.
 *
 * @module
 */
import {
  type Awaitable,
  type Backend,
  checkRange,
  checkWritable,
  type Extent,
  type ZeroOptions,
} from "../backend/backend.ts";
import { TelemapError, UsageError } from "../backend/errors.ts";
import { settleAll } from "../backend/settle.ts";
import { Draws } from "./draws.ts";
import { DueQueue } from "./due_queue.ts";
import { type CutOptions, Cuts, Link } from "./link.ts";
import { Stage } from "./stage.ts";

/** How {@linkcode delayBackend} delays; nothing of it unless told. */
export interface DelayOptions {
  /** Milliseconds of a round trip, which each call takes. */
  rtt?: number;
  /** Bytes a second that the link carries, each way; without limit unless told. */
  rate?: number;
  /** Milliseconds, over the round trip, that an answer may take: anything up to that by chance. */
  jitter?: number;
  /**
   * Share of calls that fail, 0 to 1: half of them before they reach the backend, half of them
   * behind it.
   */
  errors?: number;
  /** When the link is silent: nothing leaves either end then. */
  cuts?: CutOptions;
  /** Decides all that is by chance, a safe integer from 0; 0 unless told. */
  seed?: number;
}

/**
 * Delays `backend`, which belongs to the answer and is closed with it. Needs `--allow-ffi`.
 * Throws {@linkcode UsageError} for options that make no sense. Calls that are chosen to fail throw
 * {@linkcode TelemapError} (EIO).
 */
export function delayBackend(backend: Backend, options: DelayOptions = {}): Backend {
  checkDelayOptions(options);
  return new DelayStage(backend, options);
}

/** Throws {@linkcode UsageError} for options that {@linkcode delayBackend} does not take. */
export function checkDelayOptions(options: DelayOptions): void {
  const { rtt = 0, rate = Infinity, jitter = 0, errors = 0, cuts, seed = 0 } = options;
  const check = (right: boolean, what: string, hint: string) => {
    if (!right) throw new UsageError(`Cannot delay a region by ${what}`, { hint });
  };
  const isTime = (ms: number) => ms >= 0 && ms < 2 ** 31;
  check(isTime(rtt), `a round trip of ${rtt} ms`, "give it a time of up to 24 days");
  check(rate > 0, `a rate of ${rate} bytes a second`, "give it one over 0");
  check(isTime(jitter), `a jitter of ${jitter} ms`, "give it a time of up to 24 days");
  check(errors >= 0 && errors <= 1, `a share of ${errors} errors`, "give it 0 to 1");
  check(Number.isSafeInteger(seed) && seed >= 0, `the seed ${seed}`, "give it a whole number");
  if (cuts === undefined) return;
  const { silence, period } = cuts;
  const what = `silences of ${silence} ms every ${period} ms`;
  check(isTime(silence) && isTime(period) && silence < period, what, "they must be apart");
}

/** Reads up to this size have a connection of their own where the backend reads urgently. */
const URGENT_BYTES = 64 << 10;

class DelayStage extends Stage {
  readonly #oneWay: number;
  readonly #jitter: number;
  readonly #errors: number;
  readonly #there: Link;
  readonly #back: Link;
  readonly #jitters: Draws;
  readonly #failures: Draws;
  readonly #due = new DueQueue();
  #calls = 0;
  #closed = false;

  constructor(backend: Backend, options: DelayOptions) {
    super(backend);
    const { rtt = 0, rate = Infinity, jitter = 0, errors = 0, cuts, seed = 0 } = options;
    const silences = cuts && new Cuts(cuts, performance.now(), seed);
    this.#oneWay = rtt / 2;
    this.#jitter = jitter;
    this.#errors = errors;
    this.#there = new Link(rate, silences);
    this.#back = new Link(rate, silences);
    this.#jitters = new Draws(seed, "jitter");
    this.#failures = new Draws(seed, "failures");
  }

  readAt(buffer: Uint8Array, offset: number): Promise<void> {
    checkRange(this.size, offset, buffer.length);
    return this.#call("read", 0, buffer.length, () => this.backend.readAt(buffer, offset));
  }

  writeAt(buffer: Uint8Array, offset: number): Promise<void> {
    this.#checkChange(offset, buffer.length);
    return this.#call("write", buffer.length, 0, () => this.backend.writeAt(buffer, offset));
  }

  override flush(): Promise<void> {
    return this.#call("flush", 0, 0, () => this.backend.flush());
  }

  /** Closes the backend at once. Calls that are on their way to it are refused, without delay. */
  override async close(): Promise<void> {
    this.#closed = true;
    const closing = (async () => await this.backend.close())();
    await settleAll([closing, this.#due.close()]);
  }

  protected zeroRange(offset: number, length: number, options?: ZeroOptions): Promise<void> {
    this.#checkChange(offset, length);
    return this.#call("zero", 0, 0, () => this.backend.zero!(offset, length, options));
  }

  protected discardRange(offset: number, length: number): Promise<void> {
    this.#checkChange(offset, length);
    return this.#call("discard", 0, 0, () => this.backend.discard!(offset, length));
  }

  protected findExtents(offset: number, length: number): Promise<Extent[]> {
    checkRange(this.size, offset, length);
    return this.#call("find extents", 0, 0, () => this.backend.extents!(offset, length));
  }

  #checkChange(offset: number, length: number): void {
    checkRange(this.size, offset, length);
    checkWritable(this);
  }

  /** Does something at the other end: `sent` bytes travel there, `received` bytes travel back. */
  async #call<T>(
    what: string,
    sent: number,
    received: number,
    perform: () => Awaitable<T>,
  ): Promise<T> {
    // Closed, the backend refuses by itself.
    if (this.#closed) return await perform();
    const index = this.#calls++;
    const arrival = this.#there.carry(performance.now(), sent) + this.#oneWay;
    await this.#due.until(arrival);
    const begun = performance.now();
    const back = (bytes: number) => {
      // As if the call had arrived in time.
      const over = arrival + performance.now() - begun;
      const jitter = this.#jitter * this.#jitters.at(index);
      const isUrgent = this.readsUrgently === true && bytes <= URGENT_BYTES;
      const left = isUrgent ? this.#back.carryUrgently(over, bytes) : this.#back.carry(over, bytes);
      return this.#due.until(left + this.#oneWay + jitter);
    };
    let result: T;
    try {
      result = await this.#perform(what, index, perform);
    } catch (error) {
      await back(0);
      throw error;
    }
    await back(received);
    return result;
  }

  /** Calls the backend, or fails before or behind that as the seed has it. */
  async #perform<T>(what: string, index: number, perform: () => Awaitable<T>): Promise<T> {
    const failure = this.#failures.at(index);
    if (failure < this.#errors / 2) throw this.#failure(what);
    const result = await perform();
    if (failure < this.#errors) throw this.#failure(what);
    return result;
  }

  #failure(what: string): TelemapError {
    return new TelemapError("EIO", `Cannot ${what} as this call was chosen to fail`, {
      hint: `the region was opened with errors=${this.#errors}`,
    });
  }
}
