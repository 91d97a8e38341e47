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

/** Makes the pages those of the highest step that any of them holds, and answers that. */
export function mendPages(content: Uint8Array): number {
  const last = highestStep(content);
  const view = new DataView(content.buffer, content.byteOffset, content.length);
  for (const { page, expected } of pagesOf(content, last)) {
    view.setUint32(page * PAGE, expected, true);
  }
  return last;
}

function highestStep(content: Uint8Array): number {
  const view = new DataView(content.buffer, content.byteOffset, content.length);
  let last = 0;
  for (let at = 0; at < content.length; at += PAGE) last = Math.max(last, view.getUint32(at, true));
  return last;
}

/** What each page holds, and what it should where a step was the last. */
function* pagesOf(
  content: Uint8Array,
  last: number,
): Generator<{ page: number; found: number; expected: number }> {
  const view = new DataView(content.buffer, content.byteOffset, content.length);
  const count = content.length / PAGE;
  for (let page = 0; page < count; page++) {
    const round = Math.floor((last - page) / count);
    const expected = last < page ? 0 : round * count + page;
    yield { page, found: view.getUint32(page * PAGE, true), expected };
  }
}
