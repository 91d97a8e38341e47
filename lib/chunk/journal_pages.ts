/**
 * The file in which a cache's journal lies, as bytes. Pure.
 *
 * It is made of pages of 4096 bytes, all numbers in it are little-endian:
 *
 * ```text
 * header | intents, slot 0 | intents, slot 1 | chunks 0…, slot 0 | chunks 0…, slot 1 | chunks 16256…
 * ```
 *
 * and of two larger slots behind these, which `partial_list.ts` describes. Version 1 ends before
 * them.
 *
 * The header is written once, and lies in one sector:
 *
 * | at | header                                | at | slot                              |
 * | -- | ------------------------------------- | -- | --------------------------------- |
 * |  0 | 8 bytes `"TMCACHE\n"`                 |  0 | u32 CRC-32 of what follows        |
 * |  8 | u32 version                           |  4 | u32 number of the page            |
 * | 12 | u32 CRC-32 of 512 bytes, this being 0 |  8 | u64 generation                    |
 * | 16 | u64 size of the region                | 16 | u32 1 closed in order (intents)   |
 * | 24 | u32 bytes to a chunk                  | 20 | 12 bytes 0                        |
 * | 28 | u32 chunks to a bit of the intents    | 32 | intents: a bit a part             |
 * | 32 | 16 bytes id of the remote             |    | chunks: 2032 bytes, a bit a chunk |
 * | 48 | 16 bytes id of the cache              |    | that is local, then as many       |
 * | 64 | u16 bytes of the remote's version     |    | for those that are dirty          |
 * | 66 | the version, UTF-8                    |    |                                   |
 *
 * A page is what the slot of the higher generation holds of those whose CRC is right. A write goes
 * to the other slot, so that one which is torn leaves the page as it was.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { IntegrityError, UsageError } from "../backend/errors.ts";
import { formatSize } from "../backend/size.ts";

/** Bytes of a page. */
export const PAGE = 4096;
/** Where a slot's content begins. */
export const SLOT_HEAD = 32;
/** Chunks whose bits lie in one page. */
export const PAGE_CHUNKS = 16256;
/** Bytes that one bit of each of them takes. */
export const PAGE_BITS = PAGE_CHUNKS / 8;
/** Bytes of a slot of the list of partial chunks. */
export const PARTIAL_SLOT = 128 << 10;
/** Bytes of an id. */
export const ID_BYTES = 16;

const MAGIC = new TextEncoder().encode("TMCACHE\n");
const VERSION = 2;
/** The version before there were lists of partial chunks. */
const VERSION_WITHOUT_PARTIAL = 1;
const HEADER_BYTES = 512;
const VERSION_BYTES = 256;
const CLOSED = 1;
/** So that all bits of the journal in memory come to 128 MiB. */
const MAX_CHUNKS = 2 ** 28;
const MAX_PARTS = 4096;
const MIN_PART = 64 << 20;

/** What a journal is of: a cache and a remote, which are never taken for others. */
export interface JournalHeader {
  /** Bytes of the region. */
  readonly size: number;
  /** Bytes of a chunk; the last one may be shorter. */
  readonly chunkSize: number;
  /** Chunks that one intent covers. */
  readonly partChunks: number;
  /** 16 bytes that tell the remote's region from others. */
  readonly remote: Uint8Array;
  /** Tells the remote's bytes from others that it may have another time; "" where it has none. */
  readonly remoteVersion: string;
  /** 16 bytes that tell what the chunks lie in from another thing of its name. */
  readonly cache: Uint8Array;
}

/** What was found at the beginning of a file. */
export interface FoundHeader extends JournalHeader {
  /** Whether the file has room for lists of partial chunks. */
  readonly hasPartial: boolean;
}

/** How many there are of what. */
export interface JournalLayout {
  /** Chunks of the region. */
  readonly chunks: number;
  /** Parts of the region that have one intent each, at most 4096. */
  readonly parts: number;
  /** Pages that hold the bits of chunks; page 0, of the intents, comes before them. */
  readonly pages: number;
  /** Where the slots of the list of partial chunks begin. */
  readonly partialAt: number;
  /** Bytes of the file. */
  readonly fileSize: number;
}

/** The layout of a journal. Throws {@linkcode UsageError} on sizes that no cache can have. */
export function layoutOf(header: JournalHeader): JournalLayout {
  const { size, chunkSize } = header;
  const chunks = Math.ceil(size / chunkSize);
  if (!(Number.isSafeInteger(chunkSize) && chunkSize > 0 && chunkSize < 2 ** 32)) {
    throw new UsageError(`Cannot cache chunks of ${chunkSize} bytes`);
  }
  if (!(Number.isSafeInteger(size) && chunks > 0 && chunks <= MAX_CHUNKS)) {
    throw new UsageError(
      `Cannot cache ${formatSize(size)} in chunks of ${formatSize(chunkSize)}`,
      { hint: `choose the chunks so that there are 1 to ${MAX_CHUNKS}` },
    );
  }
  const parts = Math.ceil(chunks / header.partChunks);
  if (!(parts > 0 && parts <= MAX_PARTS)) {
    throw new UsageError(`Cannot cache ${formatSize(size)} with ${parts} intents`);
  }
  const pages = Math.ceil(chunks / PAGE_CHUNKS);
  const partialAt = slotOffset(pages + 1, 0);
  return { chunks, parts, pages, partialAt, fileSize: partialAt + 2 * PARTIAL_SLOT };
}

/** Chunks that one intent covers: 64 MiB of them, or as many as make 4096 parts of the region. */
export function partChunksOf(size: number, chunkSize: number): number {
  return Math.ceil(Math.max(MIN_PART, size / MAX_PARTS) / chunkSize);
}

/** Where a slot of a page lies in the file; page 0 is that of the intents. */
export function slotOffset(page: number, slot: number): number {
  return (1 + 2 * page + slot) * PAGE;
}

/** A version as it is recorded: as it is, or its hash where it is over 256 bytes. */
export function recordedVersion(version: string): string {
  if (new TextEncoder().encode(version).length <= VERSION_BYTES) return version;
  return `sha256:${createHash("sha256").update(version).digest("hex")}`;
}

/** The first page; the version is to be a {@linkcode recordedVersion}. */
export function encodeHeader(header: JournalHeader): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(PAGE);
  const view = new DataView(bytes.buffer);
  const version = new TextEncoder().encode(header.remoteVersion);
  if (version.length > VERSION_BYTES) throw new RangeError("Cannot record so long a version");
  bytes.set(MAGIC);
  view.setUint32(8, VERSION, true);
  setInteger(view, 16, header.size);
  view.setUint32(24, header.chunkSize, true);
  view.setUint32(28, header.partChunks, true);
  bytes.set(header.remote.subarray(0, ID_BYTES), 32);
  bytes.set(header.cache.subarray(0, ID_BYTES), 48);
  view.setUint16(64, version.length, true);
  bytes.set(version, 66);
  view.setUint32(12, crc32(bytes.subarray(0, HEADER_BYTES)), true);
  return bytes;
}

/** Throws {@linkcode UsageError} where the first page is that of a file of another kind. */
export function checkKind(page: Uint8Array, name: string): void {
  if (isBlank(page) || MAGIC.every((byte, index) => page[index] === byte)) return;
  throw new UsageError(`Cannot keep the state of the cache in ${name} as it is something else`, {
    hint: "move it away, or name another cache",
  });
}

function isBlank(page: Uint8Array): boolean {
  return page.every((byte) => byte === 0);
}

/**
 * Decodes the first page; undefined where it is all zero: the file was never finished.
 *
 * @throws {IntegrityError} It is damaged.
 * @throws {UsageError} It is of a version that is not known here.
 */
export function decodeHeader(page: Uint8Array, name: string): FoundHeader | undefined {
  const bytes = page.slice(0, HEADER_BYTES);
  if (isBlank(bytes)) return undefined;
  checkKind(bytes, name);
  const view = new DataView(bytes.buffer);
  const version = view.getUint32(8, true);
  const crc = view.getUint32(12, true);
  view.setUint32(12, 0, true);
  const intact = crc32(bytes) === crc;
  if (intact && version !== VERSION && version !== VERSION_WITHOUT_PARTIAL) {
    throw new UsageError(`Cannot open ${name} as it has version ${version} of its format`, {
      hint: `this telemap reads versions ${VERSION_WITHOUT_PARTIAL} and ${VERSION}`,
    });
  }
  const versionLength = view.getUint16(64, true);
  if (!intact || versionLength > VERSION_BYTES) throw damaged(name, "its header is damaged");
  return {
    hasPartial: version !== VERSION_WITHOUT_PARTIAL,
    size: getInteger(view, 16),
    chunkSize: view.getUint32(24, true),
    partChunks: view.getUint32(28, true),
    remote: bytes.slice(32, 32 + ID_BYTES),
    cache: bytes.slice(48, 48 + ID_BYTES),
    remoteVersion: new TextDecoder().decode(bytes.subarray(66, 66 + versionLength)),
  };
}

/** What a slot says beside its content. */
export interface SlotHead {
  /** The page that it is of. */
  readonly page: number;
  /** Counts the writes of the page, from 1. */
  readonly generation: number;
  /** Whether the cache was closed in order; of the intents only. */
  readonly closed?: boolean;
}

/** Fills in the head of a slot, whose content stands in it already. */
export function sealSlot(slot: Uint8Array<ArrayBuffer>, head: SlotHead): void {
  const view = new DataView(slot.buffer, slot.byteOffset, PAGE);
  view.setUint32(4, head.page, true);
  setInteger(view, 8, head.generation);
  view.setUint32(16, head.closed ? CLOSED : 0, true);
  view.setUint32(0, crc32(slot.subarray(4, PAGE)), true);
}

/** The slot of a page that holds. */
export interface FoundSlot {
  /** 0 or 1. */
  readonly slot: number;
  /** Of its content. */
  readonly generation: number;
  /** Whether the cache was closed in order; of the intents only. */
  readonly closed: boolean;
  /** What it holds. */
  readonly content: Uint8Array;
  /** Whether the other slot holds something that is not whole. */
  readonly otherTorn: boolean;
}

/**
 * Finds which of the two slots of a page holds.
 *
 * @throws {IntegrityError} Neither does.
 */
export function findSlot(slots: Uint8Array, page: number, name: string): FoundSlot {
  const [first, second] = [decodeSlot(slots, page, 0), decodeSlot(slots, page, 1)];
  const found = (first?.generation ?? 0) > (second?.generation ?? 0) ? first : second;
  if (found === undefined) throw damaged(name, `both copies of its page ${page} are damaged`);
  const other = 1 - found.slot;
  const otherTorn = (other === 0 ? first : second) === undefined && !isBlank(slotOf(slots, other));
  return { ...found, otherTorn };
}

/** What a slot holds; undefined where it is not whole, or of another page. */
function decodeSlot(
  slots: Uint8Array,
  page: number,
  slot: number,
): Omit<FoundSlot, "otherTorn"> | undefined {
  const bytes = slotOf(slots, slot);
  const view = new DataView(bytes.buffer, bytes.byteOffset, PAGE);
  if (view.getUint32(0, true) !== crc32(bytes.subarray(4))) return undefined;
  if (view.getUint32(4, true) !== page) return undefined;
  const closed = (view.getUint32(16, true) & CLOSED) !== 0;
  return { slot, generation: getInteger(view, 8), closed, content: bytes.subarray(SLOT_HEAD) };
}

function slotOf(slots: Uint8Array, slot: number): Uint8Array {
  return slots.subarray(slot * PAGE, (slot + 1) * PAGE);
}

/** What is thrown of a journal that is damaged. */
export function damaged(name: string, reason: string): IntegrityError {
  return new IntegrityError(`Cannot open ${name}: ${reason}`, {
    hint: "which chunks were not pushed cannot be told; restore it, or give up what it held with " +
      "--discard-cache",
  });
}

/** Writes a u64. */
export function setInteger(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

/** Reads a u64. */
export function getInteger(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}
