/**
 * Waits for several operations so that none is left running behind a failure.
 *
 * @module
 */

/** Answers when every one of the promises is settled; throws what the first failed one threw. */
export async function settleAll(promises: readonly Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(promises);
  for (const result of results) {
    if (result.status === "rejected") throw result.reason;
  }
}
