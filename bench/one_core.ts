/**
 * Keeps threads on one core, where it is no matter how long a sleeping core takes to wake up: on a
 * virtual machine that may be several times as long as what is measured.
 *
 * @module
 */
import { allowCores, allowedCores, oneCore } from "../ffi/affinity.ts";

/**
 * Keeps this thread on the last core that it may use, until it is disposed of, and for good all
 * Workers that it starts until then.
 */
export function stayOnOneCore(): Disposable {
  const allowed = allowedCores(), last = allowed.findLastIndex((bits) => bits !== 0);
  allowCores(oneCore(last * 8 + 31 - Math.clz32(allowed[last]!)));
  return { [Symbol.dispose]: () => allowCores(allowed) };
}
