/**
 * A stage whose calls can be held: as long as it is locked, reads, writes or both wait for its
 * release, each for a limited time.
 *
 * No call is on both sides of a lock: those that have reached the backend when the stage is locked go
 * on, and `lock()` answers when they are over; from its call on no other one reaches the backend.
 * What was held reaches the backend inside `release()`, in the order in which it came, so that a
 * stage which is locked again right then waits for it.
 *
 * Flushes, zeroes and discards count as writes, extents as reads.
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
import { ClosedError, DeadlineError } from "../backend/errors.ts";
import { Stage } from "./stage.ts";

/** Which calls to hold. */
export type LockedCalls = "reads" | "writes" | "all";

/** How {@linkcode lockBackend} holds calls. */
export interface LockOptions {
  /** Milliseconds for which a call is held before it fails; 30 000 unless told. */
  holdTimeout?: number;
}

type Kind = "reads" | "writes";

/** A call that waits for the release. */
interface Held {
  readonly kind: Kind;
  readonly timer: ReturnType<typeof setTimeout>;
  readonly goOn: () => void;
  readonly fail: (error: Error) => void;
}

/** A call that has reached the backend. */
interface UnderWay {
  readonly kind: Kind;
  readonly over: Promise<unknown>;
}

/** A backend whose calls can be held, from {@linkcode lockBackend}. */
export interface LockedBackend extends Backend {
  /** Whether any calls are held, if they come. */
  readonly locked: boolean;
  /**
   * Holds calls from now on (all, unless told), beside those that are held already, until
   * {@linkcode release}. Answers when those calls are over that have reached the backend before.
   *
   * Throws {@linkcode DeadlineError} where that takes over `timeout` ms (30 000 unless told); it
   * stays locked then.
   */
  lock(calls?: LockedCalls, timeout?: number): Promise<void>;
  /**
   * Lets calls go on that were held (all, unless told), and all that come. Does nothing where it is
   * not locked.
   */
  release(calls?: LockedCalls): void;
  /**
   * Has calls (writes, unless told) fail with `error` for ever: those that are held, and all that
   * come. It cannot be undone: neither locking nor releasing changes it. A call that has reached the
   * backend is not stopped; to know that there is none, lock first.
   */
  refuse(error: Error, calls?: LockedCalls): void;
  /** Has held calls fail with {@linkcode ClosedError}, and closes the backend. */
  close(): Awaitable<void>;
}

/**
 * Makes `backend`, which belongs to the answer and is closed with it, one that can be locked. It is
 * not locked yet. A call that was held for too long throws {@linkcode DeadlineError}, and has not
 * happened.
 */
export function lockBackend(backend: Backend, options: LockOptions = {}): LockedBackend {
  return new LockStage(backend, options.holdTimeout ?? 30_000);
}

class LockStage extends Stage implements LockedBackend {
  readonly #holdTimeout: number;
  readonly #locked = new Set<Kind>();
  readonly #refusals = new Map<Kind, Error>();
  readonly #held = new Set<Held>();
  readonly #underWay = new Set<UnderWay>();
  #closed = false;

  constructor(backend: Backend, holdTimeout: number) {
    super(backend);
    this.#holdTimeout = holdTimeout;
  }

  get locked(): boolean {
    return this.#locked.size > 0;
  }

  async lock(calls: LockedCalls = "all", timeout = 30_000): Promise<void> {
    for (const kind of kinds(calls)) this.#locked.add(kind);
    const awaited = [...this.#underWay].filter(({ kind }) => kinds(calls).includes(kind));
    if (awaited.length === 0) return;
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      reject(
        new DeadlineError(`Cannot lock the region within ${timeout / 1000} s`, {
          hint: "its store has not answered what was asked before; release it, and try again",
        }),
      );
    }, timeout);
    try {
      await Promise.race([Promise.allSettled(awaited.map(({ over }) => over)), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  release(calls: LockedCalls = "all"): void {
    for (const kind of kinds(calls)) this.#locked.delete(kind);
    for (const held of this.#held) {
      if (!this.#locked.has(held.kind)) held.goOn();
    }
  }

  refuse(error: Error, calls: LockedCalls = "writes"): void {
    for (const kind of kinds(calls)) this.#refusals.set(kind, error);
    for (const held of this.#held) {
      if (kinds(calls).includes(held.kind)) held.fail(error);
    }
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    checkRange(this.size, offset, buffer.length);
    return this.#pass("reads", () => this.backend.readAt(buffer, offset));
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#checkChange(offset, buffer.length);
    return this.#pass("writes", () => this.backend.writeAt(buffer, offset));
  }

  override flush(): Awaitable<void> {
    return this.#pass("writes", () => this.backend.flush());
  }

  override close(): Awaitable<void> {
    this.#closed = true;
    for (const held of this.#held) {
      held.fail(new ClosedError("Cannot use the locked region as it was closed"));
    }
    return this.backend.close();
  }

  protected zeroRange(offset: number, length: number, options?: ZeroOptions): Awaitable<void> {
    this.#checkChange(offset, length);
    return this.#pass("writes", () => this.backend.zero!(offset, length, options));
  }

  protected discardRange(offset: number, length: number): Awaitable<void> {
    this.#checkChange(offset, length);
    return this.#pass("writes", () => this.backend.discard!(offset, length));
  }

  protected findExtents(offset: number, length: number): Awaitable<Extent[]> {
    checkRange(this.size, offset, length);
    return this.#pass("reads", () => this.backend.extents!(offset, length));
  }

  #checkChange(offset: number, length: number): void {
    checkRange(this.size, offset, length);
    checkWritable(this);
  }

  #pass<T>(kind: Kind, call: () => Awaitable<T>): Awaitable<T> {
    // Closed, the backend refuses by itself.
    if (this.#closed) return call();
    const refusal = this.#refusals.get(kind);
    if (refusal !== undefined) throw refusal;
    return this.#locked.has(kind) ? this.#hold(kind, call) : this.#reach(kind, call);
  }

  /** Calls the backend, and knows of it until it has answered. */
  #reach<T>(kind: Kind, call: () => Awaitable<T>): Awaitable<T> {
    const result = call();
    if (!(result instanceof Promise)) return result;
    const underWay: UnderWay = {
      kind,
      over: result.finally(() => this.#underWay.delete(underWay)),
    };
    this.#underWay.add(underWay);
    return underWay.over as Promise<T>;
  }

  #hold<T>(kind: Kind, call: () => Awaitable<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const end = () => {
      this.#held.delete(held);
      clearTimeout(held.timer);
    };
    const held: Held = {
      kind,
      timer: setTimeout(() => held.fail(this.#lateError(kind)), this.#holdTimeout),
      goOn: () => {
        end();
        try {
          resolve(this.#reach(kind, call));
        } catch (error) {
          reject(error);
        }
      },
      fail: (error) => {
        end();
        reject(error);
      },
    };
    this.#held.add(held);
    return promise;
  }

  #lateError(kind: Kind): DeadlineError {
    const what = kind === "reads" ? "read" : "write";
    const seconds = this.#holdTimeout / 1000;
    return new DeadlineError(`Cannot ${what} as the region was locked for ${seconds} s`, {
      hint: "whoever locked it did not release it in time",
    });
  }
}

function kinds(calls: LockedCalls): readonly Kind[] {
  return calls === "all" ? ["reads", "writes"] : [calls];
}
