/**
 * Memory that is free and there: a virtual machine gives what lies free for some seconds back to its
 * host, and whoever writes there first waits for the host to find it again.
 *
 * @module
 */

const PIECE = 1 << 20;
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

/** Has the page cache take it; answers the milliseconds that this took. */
function takeOnce(bytes: number): number {
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
