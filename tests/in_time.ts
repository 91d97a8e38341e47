/**
 * Makes a failure of what would wait for ever.
 *
 * @module
 */

/** What takes so many ms waits for ever, unless told, as all of it is a matter of some. */
const MOST_MS = 5000;

/** Answers as a promise does; throws where that takes more ms. */
export async function inTime<T>(promise: Promise<T>, most = MOST_MS): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error("It waits for ever")), most);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
