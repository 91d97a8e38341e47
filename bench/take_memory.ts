/**
 * Memory that is free and there: a virtual machine gives what lies free for some seconds back to its
 * host, and whoever writes there first waits for the host to find it again.
 *
 * @module
 */
import { MADV, Mapping } from "../ffi/mman.ts";

const PAGE = 4096;
/** Takes that go quickly in a row, and in all. */
const QUICK = 3, MOST = 8;

/**
 * Leaves so many bytes of free memory behind that this machine has. Which memory somebody gets is by
 * chance, so that it is taken until that goes quickly several times in a row.
 */
export function takeMemory(bytes: number): void {
  let shortest = Infinity, quick = 0;
  for (let take = 0; take < MOST && quick < QUICK; take++) {
    const took = takeOnce(bytes);
    shortest = Math.min(shortest, took);
    quick = took < 1.5 * shortest ? quick + 1 : 0;
  }
}

/**
 * Answers the milliseconds that this took. Taken in pages as large as there are, as whoever comes next
 * does: pages of 4 KiB leave the large ones behind that the host has taken back.
 */
function takeOnce(bytes: number): number {
  const start = performance.now();
  using memory = Mapping.map({ length: bytes, subject: "memory to leave behind" });
  memory.advise(MADV.HUGEPAGE);
  for (let at = 0; at < bytes; at += PAGE) memory.bytes[at] = 1;
  return performance.now() - start;
}
