/**
 * Memory that is free and there: a virtual machine gives what lies free for some seconds back to its
 * host, and whoever writes there first waits for the host to find it again.
 *
 * @module
 */
import { MADV, Mapping } from "../ffi/mman.ts";

const PIECE = 1 << 20, PAGE = 4096;
/** Takes that go quickly in a row, and in all. */
const QUICK = 3, MOST = 8;

/** Leaves so many bytes of free memory behind that this machine has, for a page cache. */
export function takeMemory(bytes: number): void {
  takeUntilQuick(() => takeByFile(bytes));
}

/** The same for who takes it by large pages: those of 4 KiB leave some behind that the host has. */
export function takeLargePages(bytes: number): void {
  takeUntilQuick(() => takeByMapping(bytes));
}

/** Which memory somebody gets is by chance: it is taken until that goes quickly several times in a row. */
function takeUntilQuick(takeOnce: () => number): void {
  let shortest = Infinity, quick = 0;
  for (let take = 0; take < MOST && quick < QUICK; take++) {
    const took = takeOnce();
    shortest = Math.min(shortest, took);
    quick = took < 1.5 * shortest ? quick + 1 : 0;
  }
}

/** Answers the milliseconds that this took. */
function takeByMapping(bytes: number): number {
  const start = performance.now();
  using memory = Mapping.map({ length: bytes, subject: "memory to leave behind" });
  memory.advise(MADV.HUGEPAGE);
  for (let at = 0; at < bytes; at += PAGE) memory.bytes[at] = 1;
  return performance.now() - start;
}

/** The same by the page cache. */
function takeByFile(bytes: number): number {
  const path = Deno.makeTempFileSync({ prefix: "telemap-bench-" });
  try {
    const piece = new Uint8Array(PIECE), start = performance.now();
    using file = Deno.openSync(path, { write: true });
    for (let at = 0; at < bytes; at += PIECE) file.writeSync(piece);
    return performance.now() - start;
  } finally {
    Deno.removeSync(path);
  }
}
