/**
 * Makes a failure of what would wait for ever.
 *
 * @module
 */

/** What takes so many ms waits for ever, as all of it is a matter of some. */
const MOST_MS = 5000;

/** Answers as a promise does; throws where that takes too long. */
export async function inTime<T>(promise: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error("It waits for ever")), MOST_MS);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
