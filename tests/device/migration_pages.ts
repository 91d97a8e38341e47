/**
 * What the pages of a region hold in which a program counts (`migration_program.ts`): page after page,
 * round and round, the number of the step that wrote it last.
 *
 * @module
 */

/** Bytes of a page. */
export const PAGE = 4096;

/** The step that was made last. Throws where the pages are those of no moment. */
export function stepOf(content: Uint8Array): number {
  const last = highestStep(content);
  for (const { page, found, expected } of pagesOf(content, last)) {
    if (found === expected) continue;
    throw new Error(`Page ${page} holds ${found}, not ${expected}, and step ${last} was the last`);
  }
  return last;
}

/** What a crash may leave. */
export interface Left {
  /** The step that was made last. */
  step: number;
  /** The steps, of those that were made last, whose pages hold an earlier one. */
  missing: number[];
}

/**
 * Finds what is left after a crash of what was not flushed: pages of any moment since the step that
 * was `kept`. Throws where a page holds what it never did, or less than it was to keep.
 */
export function leftAfterCrash(content: Uint8Array, kept = 0): Left {
  const step = highestStep(content), missing: number[] = [];
  for (const { page, found, expected, count } of pagesOf(content, step)) {
    const isLegal = found === 0 || found % count === page;
    if (!isLegal || found < stepIn(page, kept, count)) {
      throw new Error(`Page ${page} of ${count} holds ${found}, and step ${kept} was to be kept`);
    }
    if (found !== expected) missing.push(expected);
  }
  return { step, missing };
}

/** What a page holds once a step was the last, of so many pages. */
function stepIn(page: number, last: number, count: number): number {
  return last < page ? 0 : Math.floor((last - page) / count) * count + page;
}

function highestStep(content: Uint8Array): number {
  const view = new DataView(content.buffer, content.byteOffset, content.length);
  let last = 0;
  for (let at = 0; at < content.length; at += PAGE) last = Math.max(last, view.getUint32(at, true));
  return last;
}

/** What each page holds, and what it should where a step was the last. */
export function* pagesOf(
  content: Uint8Array,
  last: number,
): Generator<{ page: number; found: number; expected: number; count: number }> {
  const view = new DataView(content.buffer, content.byteOffset, content.length);
  const count = content.length / PAGE;
  for (let page = 0; page < count; page++) {
    const found = view.getUint32(page * PAGE, true);
    yield { page, found, expected: stepIn(page, last, count), count };
  }
}
