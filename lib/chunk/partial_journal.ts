/**
 * The bytes that a cache holds of absent chunks, and their way to the disk: they outlive a crash
 * without the remote, which alone has the rest.
 *
 * A durable list names them, chunk by chunk (see `partial_list.ts`); they lie in the cache's backend
 * at their place. After a crash a chunk that is recorded absent, and is in the list, holds those
 * bytes: as the commit found them, or later, or some sectors of each, as on a disk that was not
 * flushed. Its rest is fetched, the bytes win over what is fetched, and the whole is pushed. The
 * list says nothing of a chunk that is recorded local, suspect or not.
 *
 * Why this holds whenever the power goes; the numbers with J are those of `journal.ts`:
 *
 * 1. *The list names no byte that may be lost.* It is taken with the states of the same moment,
 *    before the flush of the cache's backend, and written after it. A byte is named only when it
 *    is written (as J1).
 * 2. *A chunk leaves the list only when it is recorded local already.* The list and the pages of a
 *    commit need no order among them then (as J5). Whichever of them a crash keeps: where the page
 *    says local, the whole chunk was flushed; where it does not, the list that was durable and the
 *    one that is being written both name what was promised. So a chunk that became local stays in
 *    the list for the commit that records that, and leaves it in the next one.
 * 3. *Of a chunk in the list the cache changes only what the list does not name, or what is written
 *    by whoever writes the region.* The rest that is fetched goes into the gaps.
 * 4. *A list that is out of date never comes back.* A chunk that is recorded local may become absent
 *    by a crash. What is in the list of it is taken out when the journal is opened, before any page
 *    can record it as absent.
 * 5. *A torn slot leaves the list that was before*, as J4. To blank a torn one its first page is
 *    enough: without its head nothing of it counts.
 * 6. *A list that is too long is not written.* The one before stays: what it names was promised and
 *    is still there. The commit answers that it does not include all.
 * 7. *A commit that fails is as one under way*, as J6. Its list holds as the one that is durable
 *    does: by 2 it lacks nothing that this one has and that is needed.
 *
 * @module
 */
import { RangeList } from "../backend/range_list.ts";
import type { DurableSlot, JournalStorage } from "./journal.ts";
import { PAGE, PARTIAL_SLOT } from "./journal_pages.ts";
import { PartialChunks } from "./partial_chunks.ts";
import { encodePartial, type PartialRanges, sealPartial } from "./partial_list.ts";

/** What a {@linkcode PartialJournal} begins with. */
export interface LoadedPartial {
  /** Where its slots begin. */
  readonly at: number;
  /** Bytes of a chunk. */
  readonly chunkSize: number;
  /** The slot that holds. */
  readonly slot: DurableSlot;
  /** Whether the other one is torn. */
  readonly otherTorn: boolean;
  /** What the list names. */
  readonly named: PartialRanges;
  /** Those chunks of it that are recorded absent: of the others it is out of date. */
  readonly absent: ReadonlySet<number>;
}

/** What is known of chunks when a list is taken. */
export interface TakenStates {
  /** Whether a chunk is local in memory. */
  readonly isLocal: (chunk: number) => boolean;
  /** Whether it is recorded so durably. */
  readonly isRecordedLocal: (chunk: number) => boolean;
}

/** A list that is to be written. */
interface NewList {
  readonly slot: Uint8Array<ArrayBuffer>;
  readonly list: Uint8Array;
  readonly named: PartialRanges;
}

/** The list of a moment. */
export interface PendingList {
  /** Whether it can be kept. */
  readonly whole: boolean;
  /** What is to be written; undefined where nothing is. */
  readonly change?: NewList;
}

/** See the module. It belongs to a journal, which says when what happens. */
export class PartialJournal {
  /** The chunks of this moment: of those that were found, the ones that are absent. */
  readonly chunks: PartialChunks = new PartialChunks();
  readonly #state: JournalStorage;
  readonly #at: number;
  readonly #chunkSize: number;
  readonly #slot: DurableSlot;
  readonly #otherTorn: boolean;
  /** What the durable list names, and the list. */
  #named: PartialRanges;
  #list: Uint8Array;
  /** Whether a commit began to write the other slot and did not end. */
  #unsure = false;

  /** Takes over what was loaded. */
  constructor(state: JournalStorage, loaded: LoadedPartial) {
    this.#state = state;
    this.#at = loaded.at;
    this.#chunkSize = loaded.chunkSize;
    this.#slot = loaded.slot;
    this.#otherTorn = loaded.otherTorn;
    this.#named = loaded.named;
    this.#list = encodePartial(loaded.named, loaded.chunkSize)!;
    for (const [chunk, ranges] of loaded.named) {
      if (!loaded.absent.has(chunk)) continue;
      for (const { offset, length } of ranges) this.chunks.add(chunk, offset, offset + length);
    }
  }

  /** To be called once, when all that was found is durable, and before all else. */
  async begin(): Promise<void> {
    if (this.#otherTorn) {
      await this.#state.writeAt(new Uint8Array(PAGE), this.#offset(1 - this.#slot.slot));
      await this.#state.flush();
    }
    if (this.chunks.count === this.#named.size) return;
    const list = this.take({ isLocal: () => false, isRecordedLocal: () => true });
    await this.write(list);
    await this.#state.flush();
    this.flushed(list);
  }

  /** The list of this moment. */
  take({ isLocal, isRecordedLocal }: TakenStates): PendingList {
    if (this.chunks.count === 0 && this.#named.size === 0 && !this.#unsure) return { whole: true };
    const named = new Map<number, RangeList>();
    for (const chunk of this.chunks.chunks()) {
      named.set(chunk, RangeList.fromBounds(this.chunks.ranges(chunk)!.bounds()));
    }
    for (const [chunk, ranges] of this.#named) {
      if (isLocal(chunk) && !isRecordedLocal(chunk)) named.set(chunk, ranges);
    }
    const list = encodePartial(named, this.#chunkSize);
    if (list === undefined) return { whole: false };
    if (!this.#unsure && isEqual(list, this.#list)) return { whole: true };
    const slot = sealPartial(list, ++this.#slot.generation);
    return { whole: true, change: { slot, list, named } };
  }

  /** Writes it, if it is to be. The cache's backend was flushed since it was taken. */
  async write({ change }: PendingList): Promise<void> {
    if (change === undefined) return;
    this.#unsure = true;
    await this.#state.writeAt(change.slot, this.#offset(1 - this.#slot.slot));
  }

  /** A flush since it was written succeeded. */
  flushed({ change }: PendingList): void {
    if (change === undefined) return;
    this.#slot.slot = 1 - this.#slot.slot;
    this.#named = change.named;
    this.#list = change.list;
    this.#unsure = false;
  }

  #offset(slot: number): number {
    return this.#at + slot * PARTIAL_SLOT;
  }
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}
