/**
 * What the cache of a managed mount remembers over a crash: which chunks it holds, and which of
 * them the remote has not got.
 *
 * The *state* of a chunk is absent, clean (the cache holds what the remote has) or dirty (the cache
 * holds what the remote has not got). Each chunk has one in memory, which the cache changes, and a
 * recorded one in the state file, which lags behind and is all that a crash leaves. After a crash:
 *
 * - Recorded dirty: dirty. Its content was flushed before that was recorded, and whatever was
 *   written since was written to a dirty chunk: the content is that of the commit, or later, or
 *   some sectors of each, as on a disk that was not flushed. It is pushed.
 * - Recorded clean, no intent for its part of the region: clean. No change of its content has begun
 *   since (below), so that it is what was flushed, and what the remote has.
 * - Recorded clean, in a part with an intent: *suspect*, as its content may have been changed since
 *   in any sector. It becomes absent, and is fetched again. What was written to it was never
 *   committed, so that it may be lost.
 * - Recorded absent: absent. What the cache holds there was never committed, but for the bytes that
 *   the list of partial chunks names (see `partial_journal.ts`).
 *
 * Why this holds whenever the power goes:
 *
 * 1. *A commit records no content that may be lost.* It takes the states of one moment, flushes the
 *    cache's backend, and writes them then. A chunk is local only when its content is written, so
 *    that the flush covers the content of all that is recorded; what becomes local meanwhile is not
 *    recorded yet.
 * 2. *No change of a chunk that is recorded clean begins without a durable intent.* Whoever changes
 *    a chunk that is clean in memory calls `intend` before. One that is dirty in memory, but
 *    recorded clean, became dirty that way, and its intent is still there by 3.
 * 3. *An intent goes only when nothing needs it.* That is after a commit whose moment was at least
 *    one whole commit later than the last answer of `intend` for that part. By then every chunk
 *    that was changed there is dirty in memory, and recorded so, or it was pushed since and is
 *    recorded clean with the content that the remote has. The mark is taken from memory first, so
 *    that `intend` marks anew what comes later; and it goes from the file after the states are
 *    durable there. It need not be gone at once: one too many only makes more chunks suspect.
 * 4. *A torn page leaves what was before.* Pages are written in turn to one of two slots, never to
 *    the one that is durable. A slot is durable when a flush after its write succeeded. One that is
 *    found at opening is flushed first, as a process that was killed may have left it in memory
 *    only. One that is found torn then is blanked before anything else is written: its sectors and
 *    some of a later write could make it whole, with the highest generation and a content of the
 *    past. Among the writes of one opening that does no harm: what one of them wrote holds until a
 *    later one is durable, by 5 and 6.
 * 5. *Pages need no order among them.* The states of a chunk lie in one page, and the recorded one
 *    and the one that a commit is writing both hold: the former by 2, as intents go only after the
 *    whole commit, the latter by 1.
 * 6. *A commit that fails is as one under way.* Any of its pages may be in the file. They are
 *    written again by the next commit, even where the states are by then what they were before.
 *
 * The pieces of 2 and 3 that are up to the cache are in `cache_journal.ts`.
 *
 * @module
 */
import type { Awaitable, Backend } from "../backend/backend.ts";
import { Bitmap } from "../backend/bitmap.ts";
import { GroupCommit } from "../backend/group_commit.ts";
import type { CacheJournal, FoundState } from "./cache_journal.ts";
import { PAGE, PAGE_BITS, PAGE_CHUNKS, sealSlot, SLOT_HEAD, slotOffset } from "./journal_pages.ts";
import type { PartialChunks } from "./partial_chunks.ts";
import { type LoadedPartial, PartialJournal, type PendingList } from "./partial_journal.ts";

/** Words of a page that hold one bit of each of its chunks. */
const PAGE_WORDS = PAGE_BITS / 4;

/** Where a journal lies; an opened `file:` backend is one. */
export type JournalStorage = Pick<
  Backend,
  "size" | "durable" | "readAt" | "writeAt" | "flush" | "close"
>;

/** The slot of a page that is durable; the other one is the next to be written. */
export interface DurableSlot {
  /** 0 or 1. */
  slot: number;
  /** The highest that the page was written with, durable or not. */
  generation: number;
}

/** A slot that holds parts of several writes. */
export interface TornSlot {
  /** The number of its page. */
  readonly page: number;
  /** 0 or 1. */
  readonly slot: number;
}

/** What a {@linkcode StoredJournal} begins with. */
export interface LoadedJournal {
  /** The states in memory. */
  readonly local: Bitmap;
  /** As {@linkcode CacheJournal.dirty}. */
  readonly dirty: Bitmap;
  /** The recorded states: the words of each page as they lie in its slot. */
  readonly recorded: Int32Array<ArrayBuffer>;
  /** Of each page of chunks. */
  readonly slots: readonly DurableSlot[];
  /** Of all pages. */
  readonly torn: readonly TornSlot[];
  /** A bit for each part of the region that has an intent. */
  readonly intents: Bitmap;
  /** Of the page of intents. */
  readonly intentSlot: DurableSlot;
  /** Chunks that one intent covers. */
  readonly partChunks: number;
  /** Absent chunks that are there in part. */
  readonly partial: LoadedPartial;
  /** What is told of it. */
  readonly found: FoundState;
  /** As {@linkcode CacheJournal.isNew}. */
  readonly isNew: boolean;
}

/** A page that is to be written. */
interface PendingPage {
  /** From 0, of those that hold chunks. */
  index: number;
  slot: Uint8Array<ArrayBuffer>;
}

/** A journal in a file. Opened by `loadJournal`. */
export class StoredJournal implements CacheJournal {
  readonly local: Bitmap;
  readonly dirty: Bitmap;
  readonly partial: PartialChunks;
  readonly keepsPartial = true;
  readonly durable: boolean;
  readonly found: FoundState;
  readonly isNew: boolean;
  readonly #state: JournalStorage;
  readonly #cache: Backend;
  readonly #partChunks: number;
  readonly #localWords: Int32Array<SharedArrayBuffer>;
  readonly #dirtyWords: Int32Array<SharedArrayBuffer>;
  /** For each page the words of its local chunks, then those of its dirty ones. */
  readonly #recorded: Int32Array<ArrayBuffer>;
  readonly #slots: readonly DurableSlot[];
  /** Pages that a commit began to write and did not end. */
  readonly #unsure: Bitmap;
  readonly #commits = new GroupCommit(() => this.#commitOnce(), { retries: true });

  readonly #partialList: PartialJournal;

  readonly #intentSlot: DurableSlot;
  /** Parts whose intents are durable, and which no write under way takes away. */
  readonly #marked: Bitmap;
  /** Parts whose intents the next write of the page writes. */
  readonly #wanted: Bitmap;
  /** For each part the commits that had begun when `intend` last answered for it. */
  readonly #intendedAt: Float64Array<ArrayBuffer>;
  #commitsBegun = 1;
  /** What the page of intents is to say of it, and what it says. */
  #closedInOrder = false;
  #recordedInOrder: boolean;
  readonly #intents = new GroupCommit(() => this.#writeIntents(), { retries: true });
  #closing: Promise<void> | undefined;

  /** Takes over what was loaded. */
  constructor(state: JournalStorage, cache: Backend, loaded: LoadedJournal) {
    this.#state = state;
    this.#cache = cache;
    this.local = loaded.local;
    this.dirty = loaded.dirty;
    this.#partialList = new PartialJournal(state, loaded.partial);
    this.partial = this.#partialList.chunks;
    this.durable = state.durable && cache.durable;
    this.found = loaded.found;
    this.isNew = loaded.isNew;
    this.#partChunks = loaded.partChunks;
    this.#localWords = new Int32Array(loaded.local.buffer);
    this.#dirtyWords = new Int32Array(loaded.dirty.buffer);
    this.#recorded = loaded.recorded;
    this.#slots = loaded.slots;
    this.#unsure = new Bitmap(loaded.slots.length);
    this.#intentSlot = loaded.intentSlot;
    this.#marked = loaded.intents;
    this.#wanted = new Bitmap(loaded.intents.length);
    new Uint8Array(this.#wanted.buffer).set(new Uint8Array(loaded.intents.buffer));
    this.#intendedAt = new Float64Array(loaded.intents.length);
    this.#recordedInOrder = loaded.found.closedInOrder;
  }

  /** Makes durable what was found, and that it is open. To be called once, before all else. */
  async begin(torn: readonly TornSlot[]): Promise<void> {
    await this.#state.flush();
    for (const { page, slot } of torn) {
      await this.#state.writeAt(new Uint8Array(PAGE), slotOffset(page, slot));
    }
    if (torn.length > 0) await this.#state.flush();
    await this.#partialList.begin();
    if (this.#recordedInOrder) await this.#intents.run();
  }

  intend(from: number, to: number): Awaitable<void> {
    const first = Math.floor(from / this.#partChunks);
    const last = Math.floor((to - 1) / this.#partChunks);
    if (!this.#allMarked(first, last)) return this.#mark(first, last);
  }

  commit(): Promise<boolean> {
    return this.#commits.run();
  }

  close(): Promise<void> {
    return this.#closing ??= this.#closeOnce();
  }

  async #closeOnce(): Promise<void> {
    try {
      await this.#commits.run();
      this.#wanted.deleteRange(0, this.#wanted.length);
      this.#marked.deleteRange(0, this.#marked.length);
      this.#closedInOrder = true;
      await this.#intents.run();
    } finally {
      await this.#state.close();
    }
  }

  async #commitOnce(): Promise<boolean> {
    const moment = this.#commitsBegun++;
    const pages = this.#changedPages();
    const list = this.#partialList.take({
      isLocal: (chunk) => this.local.has(chunk),
      isRecordedLocal: (chunk) => this.#isRecordedLocal(chunk),
    });
    try {
      await this.#cache.flush();
      if (pages.length > 0 || list.change !== undefined) await this.#writePages(pages, list);
    } catch (error) {
      // Parts that were marked before this commit are to see a whole one.
      this.#commitsBegun = moment;
      throw error;
    }
    this.#dropIntents(moment);
    return list.whole;
  }

  #isRecordedLocal(chunk: number): boolean {
    const page = Math.floor(chunk / PAGE_CHUNKS);
    const word = 2 * page * PAGE_WORDS + ((chunk - page * PAGE_CHUNKS) >>> 5);
    return (this.#recorded[word]! & (1 << (chunk & 31))) !== 0;
  }

  /** Makes slots of the pages that are not as recorded, with the states of this moment. */
  #changedPages(): PendingPage[] {
    const pages: PendingPage[] = [];
    for (let index = 0; index < this.#slots.length; index++) {
      if (!this.#unsure.has(index) && !this.#isChanged(index)) continue;
      const slot = new Uint8Array(PAGE);
      const words = new Int32Array(slot.buffer, SLOT_HEAD);
      const from = index * PAGE_WORDS;
      words.set(this.#localWords.subarray(from, from + PAGE_WORDS));
      words.set(this.#dirtyWords.subarray(from, from + PAGE_WORDS), PAGE_WORDS);
      pages.push({ index, slot });
    }
    return pages;
  }

  #isChanged(index: number): boolean {
    const local = this.#localWords, dirty = this.#dirtyWords, recorded = this.#recorded;
    const from = index * PAGE_WORDS;
    const count = Math.min(PAGE_WORDS, local.length - from);
    let at = 2 * from;
    for (let word = from; word < from + count; word++, at++) {
      if (local[word] !== recorded[at] || dirty[word] !== recorded[at + PAGE_WORDS]) return true;
    }
    return false;
  }

  async #writePages(pages: PendingPage[], list: PendingList): Promise<void> {
    for (const { index, slot } of pages) {
      const durable = this.#slots[index]!;
      this.#unsure.add(index);
      await this.#writeSlot(1 + index, slot, durable, {});
    }
    await this.#partialList.write(list);
    await this.#state.flush();
    this.#partialList.flushed(list);
    for (const { index, slot } of pages) {
      const durable = this.#slots[index]!;
      durable.slot = 1 - durable.slot;
      this.#unsure.delete(index);
      this.#recorded.set(new Int32Array(slot.buffer, SLOT_HEAD), 2 * index * PAGE_WORDS);
    }
  }

  async #mark(first: number, last: number): Promise<void> {
    do {
      this.#wanted.addRange(first, last + 1);
      await this.#intents.run();
      // A commit may have dropped the intent of a part that had one before.
    } while (!this.#allMarked(first, last));
  }

  /** Whether all of the parts have durable intents; nobody drops those soon then. */
  #allMarked(first: number, last: number): boolean {
    for (let part = first; part <= last; part++) {
      if (!this.#marked.has(part)) return false;
    }
    for (let part = first; part <= last; part++) this.#intendedAt[part] = this.#commitsBegun;
    return true;
  }

  /** Takes away the intents that nothing needs after a commit of this moment. */
  #dropIntents(moment: number): void {
    let dropped = false;
    for (let part = 0; part < this.#marked.length; part++) {
      if (!this.#marked.has(part) || this.#intendedAt[part]! >= moment) continue;
      this.#marked.delete(part);
      this.#wanted.delete(part);
      dropped = true;
    }
    // It is in nobody's way where this fails: the next write of the page does it.
    if (dropped) this.#intents.run().catch(() => {});
  }

  /** Writes the page of intents; makes it durable where it says more than before. */
  async #writeIntents(): Promise<void> {
    const slot = new Uint8Array(PAGE);
    slot.set(new Uint8Array(this.#wanted.buffer), SLOT_HEAD);
    const added = this.#unmarked();
    const closed = this.#closedInOrder;
    await this.#writeSlot(0, slot, this.#intentSlot, { closed });
    if (added.length === 0 && closed === this.#recordedInOrder) return;
    await this.#state.flush();
    this.#intentSlot.slot = 1 - this.#intentSlot.slot;
    this.#recordedInOrder = closed;
    for (const part of added) {
      this.#marked.add(part);
      this.#intendedAt[part] = this.#commitsBegun;
    }
  }

  /** Parts whose intents are wanted and not durable yet. */
  #unmarked(): number[] {
    const parts: number[] = [];
    for (let part = 0; part < this.#wanted.length; part++) {
      if (this.#wanted.has(part) && !this.#marked.has(part)) parts.push(part);
    }
    return parts;
  }

  async #writeSlot(
    page: number,
    slot: Uint8Array<ArrayBuffer>,
    durable: DurableSlot,
    mark: { closed?: boolean },
  ): Promise<void> {
    sealSlot(slot, { page, generation: ++durable.generation, ...mark });
    await this.#state.writeAt(slot, slotOffset(page, 1 - durable.slot));
  }
}
