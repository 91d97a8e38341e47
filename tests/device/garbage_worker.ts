/**
 * A Worker for device tests that makes garbage of all sorts, as fast as it can, until it is
 * terminated: the heap grows and is collected all the time.
 *
 * @module
 */

let kept: unknown[] = [];

function makeGarbage(): void {
  for (let turn = 0; turn < 1000; turn++) {
    const text = `${turn}`.repeat(50);
    kept.push({ turn, text, bytes: new Uint8Array(turn * 40), more: [turn, text] });
  }
  if (kept.length > 20_000) kept = [];
  setTimeout(makeGarbage);
}

makeGarbage();
