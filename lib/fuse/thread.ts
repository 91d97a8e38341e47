/**
 * Whether a thread of this host is about to die.
 *
 * @module
 */
import { readKernelText } from "../../ffi/file.ts";

/** Signals whose default is not to end the process (signal(7)): CHLD, CONT, stops, URG, WINCH. */
const HARMLESS = [17, 18, 19, 20, 21, 22, 23, 28].reduce((mask, signal) => mask | bit(signal), 0n);

/**
 * Whether a signal is pending for a thread that will end its process: one that is neither caught,
 * ignored nor blocked. False for a thread that is gone or not visible.
 */
export function isBeingKilled(thread: number): boolean {
  if (thread === 0) return false;
  try {
    return hasFatalSignal(readKernelText(`/proc/${thread}/status`));
  } catch {
    return false;
  }
}

/** The same for the text of /proc/PID/status. */
export function hasFatalSignal(status: string): boolean {
  const mask = (name: string) => {
    const [, digits] = new RegExp(`^${name}:\\s*([0-9a-f]+)$`, "m").exec(status) ?? [];
    return digits === undefined ? 0n : BigInt(`0x${digits}`);
  };
  const pending = mask("SigPnd") | mask("ShdPnd");
  const survived = mask("SigBlk") | mask("SigIgn") | mask("SigCgt") | HARMLESS;
  return (pending & ~survived) !== 0n;
}

function bit(signal: number): bigint {
  return 1n << BigInt(signal - 1);
}
