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
  const view = new DataView(content.buffer, content.byteOffset, content.length);
  const count = content.length / PAGE;
  let last = 0;
  for (let page = 0; page < count; page++) last = Math.max(last, view.getUint32(page * PAGE, true));
  for (let page = 0; page < count; page++) {
    const found = view.getUint32(page * PAGE, true);
    const round = Math.floor((last - page) / count);
    const expected = last < page || last === 0 ? 0 : round * count + page;
    if (found !== expected) {
      throw new Error(
        `Page ${page} holds ${found} in place of ${expected}, as step ${last} was the last`,
      );
    }
  }
  return last;
}
