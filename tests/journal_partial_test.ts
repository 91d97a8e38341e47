/** The list of partial chunks in the journal of a cache: what is written of it, and when. */
import { assertEquals } from "@std/assert";
import { crc32 } from "node:zlib";
import type { CacheJournal } from "../lib/chunk/cache_journal.ts";
import { PAGE, PARTIAL_SLOT, slotOffset } from "../lib/chunk/journal_pages.ts";
import { CHUNK, CHUNKS, CountedState, load, SIZE } from "./counted_state.ts";

/** Where the lists begin. */
const LISTS = slotOffset(4, 0);

/** Bytes of the region that are there of absent chunks, by chunk. */
function parts({ partial }: CacheJournal): [number, number[]][] {
  return [...partial.chunks()].map((chunk) => [chunk, [...partial.ranges(chunk)!.bounds()]]);
}

Deno.test("a commit keeps parts of absent chunks, which stay in the list until they are recorded", async () => {
  const state = new CountedState();
  const journal = await load(state);
  journal.partial.add(7, 7 * CHUNK + 10, 7 * CHUNK + 20);
  journal.partial.add(CHUNKS - 1, SIZE - 5, SIZE);
  state.writes = [];
  assertEquals(await journal.commit(), true);
  assertEquals(state.writes, [LISTS + PARTIAL_SLOT]);
  const next = await load(state.copy());
  assertEquals(parts(next), parts(journal));
  assertEquals(next.found, { closedInOrder: false, suspect: 0, dirty: 2 });
  state.writes = [];
  await journal.commit();
  assertEquals(state.writes, [], "It is as it was");
  const before = state.copy();
  journal.partial.delete(7);
  journal.local.add(7);
  journal.dirty.add(7);
  await journal.commit();
  assertEquals(state.writes, [slotOffset(1, 1)], "The list stays");
  assertEquals(parts(await load(state.copy())).map(([chunk]) => chunk), [CHUNKS - 1]);
  // The page of that commit was lost, and nothing else.
  const lost = state.copy();
  const page = new Uint8Array(PAGE);
  before.readAt(page, slotOffset(1, 1));
  lost.writeAt(page, slotOffset(1, 1));
  assertEquals(parts(await load(lost)).map(([chunk]) => chunk), [7, CHUNKS - 1]);
  state.writes = [];
  await journal.commit();
  assertEquals(state.writes, [LISTS], "Now the other slot");
});

Deno.test("what the list names of a chunk that was recorded local is gone when that is opened", async () => {
  const state = new CountedState();
  const journal = await load(state);
  journal.partial.add(7, 7 * CHUNK, 7 * CHUNK + 20);
  await journal.commit();
  journal.partial.delete(7);
  journal.local.add(7);
  await journal.commit();
  await journal.intend(7, 8);
  const crashed = state.copy();
  const next = await load(crashed);
  assertEquals([next.found.suspect, next.local.has(7), next.partial.count], [1, false, 0]);
  // The list that the next commit writes is lost, and its page is not.
  const list = new Uint8Array(2 * PARTIAL_SLOT);
  crashed.readAt(list, LISTS);
  await next.commit();
  crashed.writeAt(list, LISTS);
  assertEquals((await load(crashed)).partial.count, 0, "It does not come back");
});

Deno.test("a list that is too long is not written, and the one before stays", async () => {
  const state = new CountedState();
  const journal = await load(state);
  journal.partial.add(7, 7 * CHUNK + 200, 7 * CHUNK + 400);
  await journal.commit();
  // A step, a count, and two numbers of two bytes each: 22 000 of them do not fit.
  for (let chunk = 10; chunk < 22_010; chunk++) {
    journal.partial.add(chunk, chunk * CHUNK + 200, chunk * CHUNK + 400);
  }
  journal.local.add(3);
  assertEquals(await journal.commit(), false);
  const next = await load(state.copy());
  assertEquals([parts(next).map(([chunk]) => chunk), next.local.has(3)], [[7], true]);
  for (let chunk = 10; chunk < 1010; chunk++) journal.partial.delete(chunk);
  assertEquals(await journal.commit(), true);
  assertEquals((await load(state.copy())).partial.count, 21_001);
});

Deno.test("after a commit that failed the list is written again, also where it is as before", async () => {
  const state = new CountedState();
  const journal = await load(state);
  journal.partial.add(7, 7 * CHUNK, 7 * CHUNK + 20);
  await journal.commit();
  journal.partial.add(8, 8 * CHUNK, 8 * CHUNK + 20);
  state.gate = Promise.reject(new Error("No flush"));
  await journal.commit().then(() => Promise.reject(new Error("It succeeded")), () => {});
  state.gate = undefined;
  journal.partial.delete(8);
  assertEquals(await journal.commit(), true);
  assertEquals(parts(await load(state.copy())).map(([chunk]) => chunk), [7]);
});

Deno.test("a list that is found torn loses its head before anything else is written", async () => {
  const state = new CountedState();
  const journal = await load(state);
  journal.partial.add(7, 7 * CHUNK, 7 * CHUNK + 20);
  await journal.commit();
  const torn = state.copy();
  torn.writeAt(new Uint8Array(512).fill(1), LISTS);
  torn.writes = [];
  const before = torn.flushes;
  assertEquals(parts(await load(torn)).map(([chunk]) => chunk), [7]);
  assertEquals([torn.writes, torn.flushes - before], [[LISTS], 2]);
});

Deno.test("a journal from before there were lists is opened, and gets them", async () => {
  const state = new CountedState();
  const journal = await load(state);
  journal.local.add(5);
  await journal.close();
  const old = state.copy();
  const header = new Uint8Array(512);
  old.readAt(header, 0);
  const view = new DataView(header.buffer);
  view.setUint32(8, 1, true);
  view.setUint32(12, 0, true);
  view.setUint32(12, crc32(header), true);
  old.writeAt(header, 0);
  // What comes behind the pages then is anything.
  old.writeAt(new Uint8Array(2 * PARTIAL_SLOT).fill(9), LISTS);
  const opened = await load(old);
  assertEquals([opened.local.has(5), opened.partial.count], [true, 0]);
  opened.partial.add(7, 7 * CHUNK, 7 * CHUNK + 20);
  assertEquals(await opened.commit(), true);
  assertEquals(parts(await load(old.copy())), [[7, [7 * CHUNK, 7 * CHUNK + 20]]]);
});
