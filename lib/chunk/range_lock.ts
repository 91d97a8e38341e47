/**
 * Locks on ranges of a region, shared or exclusive, granted in the order in which they were asked
 * for wherever ranges overlap.
 *
 * @module
 */
import type { Awaitable } from "../backend/backend.ts";

/** One range that is held, or waited for. */
interface Claim {
  readonly start: number;
  readonly end: number;
  readonly exclusive: boolean;
  /** Earlier claims that are in the way. */
  blockers: number;
  /** Later claims that wait for this one. */
  readonly followers: Claim[];
  /** Called when nothing is in the way any more. */
  grant: () => void;
}

/**
 * See the module. Holds an entry for each operation that is under way, and none once all are over;
 * what is done at once while nothing is under way costs neither a promise nor an entry.
 */
export class RangeLock {
  readonly #claims = new Set<Claim>();

  /** Operations that hold a range or wait for one. */
  get size(): number {
    return this.#claims.size;
  }

  /** Runs an action while nobody holds any of `[start, end)` exclusively. */
  shared<T>(start: number, end: number, action: () => Awaitable<T>): Awaitable<T> {
    return this.#hold(start, end, false, action);
  }

  /** Runs an action while nobody else holds any of `[start, end)`. */
  exclusive<T>(start: number, end: number, action: () => Awaitable<T>): Awaitable<T> {
    return this.#hold(start, end, true, action);
  }

  #hold<T>(
    start: number,
    end: number,
    exclusive: boolean,
    action: () => Awaitable<T>,
  ): Awaitable<T> {
    const claim: Claim = { start, end, exclusive, blockers: 0, followers: [], grant: () => {} };
    for (const earlier of this.#claims) {
      if (!inTheWay(earlier, claim)) continue;
      earlier.followers.push(claim);
      claim.blockers++;
    }
    this.#claims.add(claim);
    if (claim.blockers === 0) return this.#run(claim, action);
    return new Promise<void>((resolve) => claim.grant = resolve)
      .then(() => this.#run(claim, action));
  }

  #run<T>(claim: Claim, action: () => Awaitable<T>): Awaitable<T> {
    let result: Awaitable<T>;
    try {
      result = action();
    } catch (error) {
      this.#release(claim);
      throw error;
    }
    if (result instanceof Promise) return result.finally(() => this.#release(claim));
    this.#release(claim);
    return result;
  }

  #release(claim: Claim): void {
    this.#claims.delete(claim);
    for (const follower of claim.followers) {
      if (--follower.blockers === 0) follower.grant();
    }
  }
}

function inTheWay(earlier: Claim, later: Claim): boolean {
  return (earlier.exclusive || later.exclusive) &&
    earlier.start < later.end && later.start < earlier.end;
}
