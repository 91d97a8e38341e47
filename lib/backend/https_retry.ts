/**
 * Tries again what a server or a network may do a little later, until a deadline.
 *
 * @module
 */
import { DeadlineError } from "./errors.ts";

/** A failure that the next attempt may not meet: a cut connection, a server that is busy. */
export class TransientError extends Error {
  /** Milliseconds to wait at least before the next attempt. */
  readonly retryAfter: number;
  /** There was no whole answer, so the server may not even be there. */
  readonly unanswered: boolean;

  /** Says what happened, in words that go on from "not read yet: ". */
  constructor(
    message: string,
    { retryAfter = 0, unanswered = false, cause }: {
      retryAfter?: number;
      unanswered?: boolean;
      cause?: unknown;
    } = {},
  ) {
    super(message, { cause });
    this.name = "TransientError";
    this.retryAfter = retryAfter;
    this.unanswered = unanswered;
  }
}

/** How {@linkcode retrying} tries; moments as `performance.now()` counts, in ms. */
export interface RetryOptions {
  /** What is tried, for the message: "read 512 bytes at offset 0 of https://…". */
  what: string;
  /** When to give up. */
  deadline: number;
  /** Ends the pauses early; its reason is thrown. */
  signal: AbortSignal;
  /** Called with each failure after which it tries again. */
  onFailure: (failure: TransientError) => void;
}

/** Milliseconds between attempts: the first pause, and the longest. */
const BACKOFF = { first: 50, most: 2000 };

/**
 * Calls `attempt` until it throws no {@linkcode TransientError}. Throws {@linkcode DeadlineError}
 * where the next attempt would come too late, and whatever else `attempt` throws.
 */
export async function retrying<T>(attempt: () => Promise<T>, options: RetryOptions): Promise<T> {
  const { what, deadline, signal, onFailure } = options;
  const began = performance.now();
  for (let failures = 1;; failures++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof TransientError)) throw error;
      const pause = Math.max(backoff(failures), error.retryAfter);
      if (performance.now() + pause >= deadline) {
        const waited = Math.round(performance.now() - began);
        throw new DeadlineError(`Cannot ${what} within ${waited} ms: ${error.message}`, {
          cause: error,
        });
      }
      onFailure(error);
      await sleep(pause, signal);
    }
  }
}

/** Milliseconds before the attempt after so many failures; random, so that many clients spread out. */
function backoff(failures: number): number {
  return Math.min(BACKOFF.most, BACKOFF.first * 2 ** (failures - 1)) * (0.75 + Math.random() / 2);
}

async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { promise, resolve } = Promise.withResolvers<void>();
  const wake = () => resolve();
  const timer = setTimeout(wake, ms);
  signal.addEventListener("abort", wake);
  await promise;
  clearTimeout(timer);
  signal.removeEventListener("abort", wake);
  signal.throwIfAborted();
}
