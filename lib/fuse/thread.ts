/**
 * Whether a thread of this host is about to die.
 *
 * @module
 */
import { readKernelText } from "../../ffi/file.ts";

const SIGKILL_BIT = 1n << 8n;

/**
 * Whether a thread has a SIGKILL pending. Any signal that ends a process becomes one for each of
 * its threads (kernel/signal.c, complete_signal). False for a thread that is gone or not visible.
 */
export function isBeingKilled(thread: number): boolean {
  if (thread === 0) return false;
  try {
    return pendingSignals(readKernelText(`/proc/${thread}/status`)).some((mask) =>
      (mask & SIGKILL_BIT) !== 0n
    );
  } catch {
    return false;
  }
}

function pendingSignals(status: string): bigint[] {
  const lines = status.matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm);
  return [...lines].map((line) => BigInt(`0x${line[1]}`));
}
