/**
 * Opens the journal of a cache: makes a new one, or reads the one that is there, checks that it is
 * of this cache and this remote, and takes for absent what a crash made doubtful.
 *
 * @module
 */
import { type Backend, extentsOf } from "../backend/backend.ts";
import { Bitmap } from "../backend/bitmap.ts";
import { ChangedError, IntegrityError, UsageError } from "../backend/errors.ts";
import { formatSize } from "../backend/size.ts";
import type { CacheJournal } from "./cache_journal.ts";
import {
  type DurableSlot,
  type JournalStorage,
  type LoadedJournal,
  StoredJournal,
  type TornSlot,
} from "./journal.ts";
import {
  checkKind,
  decodeHeader,
  encodeHeader,
  findSlot,
  type FoundHeader,
  type FoundSlot,
  ID_BYTES,
  type JournalHeader,
  type JournalLayout,
  layoutOf,
  PAGE,
  PAGE_BITS,
  partChunksOf,
  PARTIAL_SLOT,
  recordedVersion,
  sealSlot,
  slotOffset,
} from "./journal_pages.ts";
import type { LoadedPartial } from "./partial_journal.ts";
import { decodePartial, findPartial, sealPartial } from "./partial_list.ts";

/** Pages that are read or written at once. */
const BATCH = 128;
/** What all pages of a new journal have. */
const FIRST_GENERATION = 1;

/** What tells a remote from others. */
export interface RemoteIdentity {
  /** 16 bytes that are the same as long as it is the same region. */
  readonly id: Uint8Array;
  /** The version of its backend, where it has one. */
  readonly version?: string | undefined;
}

/** What {@linkcode loadJournal} is asked for. */
export interface JournalOptions {
  /** Where the journal lies; it belongs to the answer, and is closed with it. */
  state: JournalStorage;
  /** What the chunks lie in. It stays the caller's. */
  cache: Backend;
  /** 16 bytes that tell `cache` from another thing of its name. */
  cacheId: Uint8Array;
  /** Bytes of the region. */
  size: number;
  /** Bytes of a chunk. */
  chunkSize: number;
  /** What is cached. */
  remote: RemoteIdentity;
  /** What `state` is called in messages. */
  name: string;
  /** Give up what the cache holds, also what was not pushed, and begin anew. */
  discard?: boolean | undefined;
  /** Chunks that one intent covers; what journal_pages.ts says unless told. Of a new one only. */
  partChunks?: number;
}

/** Bytes that the state of a cache takes. Throws {@linkcode UsageError} on impossible sizes. */
export function stateSize(size: number, chunkSize: number): number {
  const ids = { remote: new Uint8Array(ID_BYTES), cache: new Uint8Array(ID_BYTES) };
  const partChunks = partChunksOf(size, chunkSize);
  return layoutOf({ size, chunkSize, partChunks, remoteVersion: "", ...ids }).fileSize;
}

/**
 * Opens a journal; makes it where the state is all zero.
 *
 * @throws {ChangedError} It is of another remote, of another version of it, or of another cache.
 * @throws {UsageError} It is of another chunk size or size, or is not there though the cache holds
 * something, or the state is a file of another kind.
 * @throws {IntegrityError} It is damaged.
 */
export async function loadJournal(options: JournalOptions): Promise<CacheJournal> {
  const { state, cache, name } = options;
  const asked = headerOf(options);
  const first = await read(state, { offset: 0, length: PAGE, name });
  checkKind(first, name);
  const header = options.discard ? undefined : decodeHeader(first, name);
  if (header === undefined) await format(options, asked);
  const found = header ?? { ...asked, hasPartial: true };
  const loaded = await load(state, found, name);
  checkPair(found, asked, { name, dirty: loaded.found.dirty });
  if (!found.hasPartial) await addPartial(state, found);
  const journal = new StoredJournal(state, cache, loaded);
  await journal.begin(loaded.torn);
  return journal;
}

/** Where a journal is read. */
type JournalReader = Pick<JournalStorage, "size" | "readAt">;

/** What a journal says of a cache, and of what that is. */
export interface JournalContent {
  /** Of what. */
  readonly header: JournalHeader;
  /** The chunks that are there, those left out that a crash made doubtful. */
  readonly local: Bitmap;
}

/** Reads a journal as it is, and changes nothing; undefined where it was never finished. */
export async function readJournal(
  state: JournalReader,
  name: string,
): Promise<JournalContent | undefined> {
  const first = await read(state, { offset: 0, length: PAGE, name });
  const header = decodeHeader(first, name);
  if (header === undefined) return undefined;
  const { local } = await load(state, header, name);
  return { header, local };
}

function headerOf(options: JournalOptions): JournalHeader {
  const { size, chunkSize, remote } = options;
  return {
    size,
    chunkSize,
    partChunks: options.partChunks ?? partChunksOf(size, chunkSize),
    remote: remote.id,
    remoteVersion: recordedVersion(remote.version ?? ""),
    cache: options.cacheId,
  };
}

/** Writes a journal of a cache that holds nothing; the header last, so that none is half made. */
async function format(options: JournalOptions, header: JournalHeader): Promise<void> {
  const { state, cache, name } = options;
  const layout = layoutOf(header);
  if (state.size < layout.fileSize) {
    throw new IntegrityError(`Cannot make ${name} as it has ${state.size} bytes`);
  }
  if (options.discard) {
    await state.writeAt(new Uint8Array(PAGE), 0);
    await state.flush();
  } else {
    await checkVacant(cache, name);
  }
  for (let from = 0; from <= layout.pages; from += BATCH) {
    const count = Math.min(BATCH, layout.pages + 1 - from);
    // The second slots are written too, so that a full disk cannot stop a commit later.
    const slots = new Uint8Array(count * 2 * PAGE);
    for (let index = 0; index < count; index++) {
      const page = from + index;
      const slot = slots.subarray(index * 2 * PAGE, (index * 2 + 1) * PAGE);
      sealSlot(slot, { page, generation: FIRST_GENERATION, closed: page === 0 });
    }
    await state.writeAt(slots, slotOffset(from, 0));
  }
  await addPartial(state, header);
}

/** Makes the list of partial chunks, empty, and then the header that says that it is there. */
async function addPartial(state: JournalStorage, header: JournalHeader): Promise<void> {
  const slots = new Uint8Array(2 * PARTIAL_SLOT);
  slots.set(sealPartial(new Uint8Array(0), FIRST_GENERATION));
  await state.writeAt(slots, layoutOf(header).partialAt);
  await state.flush();
  await state.writeAt(encodeHeader(header), 0);
  await state.flush();
}

/** A cache without a state may be somebody's data under a name that was mistaken. */
async function checkVacant(cache: Backend, name: string): Promise<void> {
  const extents = await extentsOf(cache, 0, cache.size);
  if (extents.every(({ hole }) => hole)) return;
  throw new UsageError(`Cannot use the cache as it holds data, and ${name} does not say of what`, {
    hint: "name another cache, or give up what it holds with --discard-cache",
  });
}

async function load(
  state: JournalReader,
  header: FoundHeader,
  name: string,
): Promise<LoadedJournal> {
  const layout = layoutOf(header);
  const { intents, found: foundIntents } = await loadIntents(state, layout, name);
  const local = new Bitmap(layout.chunks), dirty = new Bitmap(layout.chunks);
  const recorded = new Uint8Array(layout.pages * 2 * PAGE_BITS);
  const slots: DurableSlot[] = [];
  const torn: TornSlot[] = tornSlot(foundIntents, 0);
  for (let from = 1; from <= layout.pages; from += BATCH) {
    const count = Math.min(BATCH, layout.pages + 1 - from);
    const bytes = await read(state, {
      offset: slotOffset(from, 0),
      length: count * 2 * PAGE,
      name,
    });
    for (let index = 0; index < count; index++) {
      const page = from + index;
      const pair = bytes.subarray(index * 2 * PAGE, (index + 1) * 2 * PAGE);
      const found = findSlot(pair, page, name);
      recorded.set(found.content, (page - 1) * 2 * PAGE_BITS);
      setBits(local, page - 1, found.content.subarray(0, PAGE_BITS));
      setBits(dirty, page - 1, found.content.subarray(PAGE_BITS));
      slots.push(durableSlot(found));
      torn.push(...tornSlot(found, page));
    }
  }
  const partial = await loadPartial(state, header, local, name);
  const suspect = dropDoubtful({ local, dirty, intents, partChunks: header.partChunks });
  return {
    local,
    dirty,
    recorded: new Int32Array(recorded.buffer),
    slots,
    torn,
    intents,
    intentSlot: durableSlot(foundIntents),
    partChunks: header.partChunks,
    partial,
    found: {
      closedInOrder: foundIntents.closed,
      suspect,
      dirty: dirty.count() + partial.absent.size,
    },
    // Whoever opens it says first that it is open.
    isNew: foundIntents.closed && foundIntents.generation === FIRST_GENERATION,
  };
}

async function loadIntents(
  state: JournalReader,
  layout: JournalLayout,
  name: string,
): Promise<{ intents: Bitmap; found: FoundSlot }> {
  const bytes = await read(state, { offset: slotOffset(0, 0), length: 2 * PAGE, name });
  const found = findSlot(bytes, 0, name);
  const intents = new Bitmap(layout.parts);
  const bits = new Uint8Array(intents.buffer);
  bits.set(found.content.subarray(0, bits.length));
  return { intents, found };
}

/** Reads the list of partial chunks; `local` are the chunks that are recorded so. */
async function loadPartial(
  state: JournalReader,
  header: FoundHeader,
  local: Bitmap,
  name: string,
): Promise<LoadedPartial> {
  const at = layoutOf(header).partialAt;
  const found = header.hasPartial
    ? findPartial(await read(state, { offset: at, length: 2 * PARTIAL_SLOT, name }), name)
    : { list: new Uint8Array(0), slot: 0, generation: FIRST_GENERATION, otherTorn: false };
  const named = decodePartial(found.list, header, name);
  return {
    at,
    chunkSize: header.chunkSize,
    slot: { slot: found.slot, generation: found.generation },
    otherTorn: found.otherTorn,
    named,
    absent: new Set([...named.keys()].filter((chunk) => !local.has(chunk))),
  };
}

function durableSlot({ slot, generation }: FoundSlot): DurableSlot {
  return { slot, generation };
}

function tornSlot({ slot, otherTorn }: FoundSlot, page: number): TornSlot[] {
  return otherTorn ? [{ page, slot: 1 - slot }] : [];
}

/** Sets the bits of the chunks of a page; what the page has beyond the last chunk is left out. */
function setBits(bitmap: Bitmap, page: number, bits: Uint8Array): void {
  const bytes = new Uint8Array(bitmap.buffer);
  const at = page * PAGE_BITS;
  bytes.set(bits.subarray(0, bytes.length - at), at);
}

/**
 * Makes clean chunks absent where there is an intent; answers how many. Their order of states is
 * kept as well: what is dirty is local.
 */
function dropDoubtful(
  state: { local: Bitmap; dirty: Bitmap; intents: Bitmap; partChunks: number },
): number {
  const { local, dirty, intents, partChunks } = state;
  const localWords = new Int32Array(local.buffer), dirtyWords = new Int32Array(dirty.buffer);
  for (let word = 0; word < dirtyWords.length; word++) {
    dirtyWords[word] = dirtyWords[word]! & localWords[word]!;
  }
  let dropped = 0;
  for (let part = 0; part < intents.length; part++) {
    if (!intents.has(part)) continue;
    const end = Math.min((part + 1) * partChunks, local.length);
    for (let chunk = part * partChunks; chunk < end; chunk++) {
      if (!local.has(chunk) || dirty.has(chunk)) continue;
      local.delete(chunk);
      dropped++;
    }
  }
  return dropped;
}

/** Refuses a journal of something else, and says what would be lost by giving it up. */
function checkPair(
  found: JournalHeader,
  asked: JournalHeader,
  cache: { name: string; dirty: number },
): void {
  const unpushed = cache.dirty === 0
    ? ""
    : ` (it holds ${cache.dirty} ${cache.dirty === 1 ? "chunk" : "chunks"} never pushed)`;
  const hint = `name another cache, or give up what this one holds${unpushed} with --discard-cache`;
  const refusal = `Cannot use the cache of ${cache.name}`;
  if (!sameBytes(found.cache, asked.cache)) {
    throw new ChangedError(`${refusal} as its data was replaced or moved since`, { hint });
  }
  if (!sameBytes(found.remote, asked.remote)) {
    throw new ChangedError(`${refusal} as it is of another remote`, { hint });
  }
  if (found.remoteVersion !== asked.remoteVersion) {
    const [then, now] = [found.remoteVersion, asked.remoteVersion].map(quoted);
    const why = `the remote had version ${then} and has ${now}`;
    throw new ChangedError(`${refusal} as ${why}`, { hint });
  }
  for (const [what, key] of [["a size", "size"], ["chunks", "chunkSize"]] as const) {
    if (found[key] === asked[key]) continue;
    const sizes = `${formatSize(asked[key])} as it has ${what} of ${formatSize(found[key])}`;
    throw new UsageError(`${refusal} with ${what} of ${sizes}`, { hint });
  }
}

function quoted(version: string): string {
  return version === "" ? "none" : JSON.stringify(version);
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

async function read(
  state: JournalReader,
  range: { offset: number; length: number; name: string },
): Promise<Uint8Array> {
  const { offset, length, name } = range;
  if (offset + length > state.size) {
    throw new IntegrityError(`Cannot open ${name}: it ends after ${state.size} bytes`, {
      hint: "restore it, or give up what the cache held with --discard-cache",
    });
  }
  const bytes = new Uint8Array(length);
  await state.readAt(bytes, offset);
  return bytes;
}
