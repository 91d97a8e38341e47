/**
 * Memory that is free and there: a virtual machine gives what lies free for some seconds back to its
 * host, and whoever writes there first waits for the host to find it again.
 *
 * @module
 */
import { setTimeout as delay } from "node:timers/promises";
import { MADV, Mapping } from "../ffi/mman.ts";

const PIECE = 1 << 20, PAGE = 4096;
/** Has a whole large page in it wherever it lies: the kernel gives back nothing smaller. */
const GIVEN_BACK = 4 << 20;
/** The kernel looks for what to give back 2 s after some was freed (mm/page_reporting.c), in ms. */
const LOOK_MS = 2200;
/** Takes that go quickly in a row, and in all. */
const QUICK = 3, MOST = 8;

/**
 * Leaves so many bytes of free memory behind that this machine has, for a page cache. Which memory somebody
 * gets is by chance: it is taken until that goes quickly several times in a row.
 */
export function takeMemory(bytes: number): void {
  let shortest = Infinity, quick = 0;
  for (let take = 0; take < MOST && quick < QUICK; take++) {
    const took = takeByFile(bytes);
    shortest = Math.min(shortest, took);
    quick = took < 1.5 * shortest ? quick + 1 : 0;
  }
}

/**
 * The same for who takes it by large pages, for over a second. What the kernel finds when it looks for
 * memory to give back may have been freed a moment before: so this has it look, and frees what it took
 * behind that.
 */
export async function takeLargePages(bytes: number): Promise<void> {
  takeByMapping(GIVEN_BACK).unmap();
  const looked = delay(LOOK_MS);
  using _memory = takeByMapping(bytes);
  await looked;
}

/** Memory of large pages, all of them there. */
function takeByMapping(bytes: number): Mapping {
  const memory = Mapping.map({ length: bytes, subject: "memory to leave behind" });
  memory.advise(MADV.HUGEPAGE);
  for (let at = 0; at < bytes; at += PAGE) memory.bytes[at] = 1;
  return memory;
}

/** Answers the milliseconds that this took. */
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
