/**
 * The list of the bytes that a cache holds of absent chunks, as it lies in the file of its journal.
 * Pure.
 *
 * It has two slots of 128 KiB, behind all pages:
 *
 * | at | slot                                                                             |
 * | -- | -------------------------------------------------------------------------------- |
 * |  0 | u32 CRC-32 of what follows, to the end of the list                                |
 * |  4 | u32 bytes of the list                                                             |
 * |  8 | u64 generation                                                                    |
 * | 16 | 16 bytes 0                                                                        |
 * | 32 | the list: for each chunk, in ascending order, how far it is behind the one before |
 * |    | (behind -1), the count of its ranges, and for each of those in ascending order    |
 * |    | how far it is behind the one before (behind the chunk's first byte) and its bytes |
 *
 * Numbers of a slot's head are little-endian, those of the list are LEB128: seven bits to a byte,
 * the lowest first, with the highest bit where more follow.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { RangeList } from "../backend/range_list.ts";
import { damaged, getInteger, PAGE, PARTIAL_SLOT, setInteger } from "./journal_pages.ts";

/** By chunk, what of it is there, as bytes of the region. */
export type PartialRanges = ReadonlyMap<number, RangeList>;

/** What a list is of. */
export interface PartialBounds {
  /** Bytes of the region. */
  readonly size: number;
  /** Bytes of a chunk; the last one may be shorter. */
  readonly chunkSize: number;
}

const HEAD = 32;
/** Bytes of the longest list. */
export const LIST_MOST = PARTIAL_SLOT - HEAD;

/** The list; undefined where it is too long for a slot. */
export function encodePartial(ranges: PartialRanges, chunkSize: number): Uint8Array | undefined {
  const numbers = new NumberWriter(LIST_MOST);
  let before = -1;
  for (const chunk of [...ranges.keys()].sort((a, b) => a - b)) {
    const list = ranges.get(chunk)!;
    numbers.write(chunk - before);
    numbers.write(list.count);
    before = chunk;
    let at = chunk * chunkSize;
    for (let index = 0; index < list.count; index++) {
      numbers.write(list.start(index) - at);
      numbers.write(list.end(index) - list.start(index));
      at = list.end(index);
    }
    if (numbers.isOver) return undefined;
  }
  return numbers.written();
}

/** Reads such a list. Throws {@linkcode IntegrityError} where it is none of such a region. */
export function decodePartial(
  list: Uint8Array,
  { size, chunkSize }: PartialBounds,
  name: string,
): Map<number, RangeList> {
  const numbers = new NumberReader(list);
  const ranges = new Map<number, RangeList>();
  let chunk = -1;
  while (numbers.left > 0) {
    const step = numbers.read(), count = numbers.read();
    chunk += step;
    let at = chunk * chunkSize;
    const end = Math.min(at + chunkSize, size);
    const found = new RangeList();
    for (let index = 0; index < count && at <= end; index++) {
      const start = at + numbers.read();
      at = start + numbers.read();
      found.add(start, at);
    }
    // What is not a number fails here, too.
    if (!(step > 0 && count > 0 && found.count === count && at <= end)) {
      throw damaged(name, "its list of partial chunks is damaged");
    }
    ranges.set(chunk, found);
  }
  return ranges;
}

/** A slot with that list, as far as it is to be written: whole pages. */
export function sealPartial(list: Uint8Array, generation: number): Uint8Array<ArrayBuffer> {
  const end = HEAD + list.length;
  const slot = new Uint8Array(Math.ceil(end / PAGE) * PAGE);
  const view = new DataView(slot.buffer);
  view.setUint32(4, list.length, true);
  setInteger(view, 8, generation);
  slot.set(list, HEAD);
  view.setUint32(0, crc32(slot.subarray(4, end)), true);
  return slot;
}

/** The slot that holds. */
export interface FoundPartial {
  /** 0 or 1. */
  readonly slot: number;
  /** Of its list. */
  readonly generation: number;
  /** What it holds. */
  readonly list: Uint8Array;
  /** Whether the other slot holds something that is not whole. */
  readonly otherTorn: boolean;
}

/**
 * Finds which of the two slots holds.
 *
 * @throws {IntegrityError} Neither does.
 */
export function findPartial(slots: Uint8Array, name: string): FoundPartial {
  const pair = [0, 1].map((slot) => slots.subarray(slot * PARTIAL_SLOT, (slot + 1) * PARTIAL_SLOT));
  const [first, second] = pair.map(decodeSlot);
  const slot = (first?.generation ?? 0) > (second?.generation ?? 0) ? 0 : 1;
  const [found, other] = slot === 0 ? [first, second] : [second, first];
  if (found === undefined) {
    throw damaged(name, "both copies of its list of partial chunks are damaged");
  }
  // Without its head nothing of it can ever be taken for a list again.
  const otherTorn = other === undefined &&
    pair[1 - slot]!.subarray(0, HEAD).some((byte) => byte !== 0);
  return { ...found, slot, otherTorn };
}

/** What a slot holds; undefined where it is not whole. */
function decodeSlot(slot: Uint8Array): { generation: number; list: Uint8Array } | undefined {
  const view = new DataView(slot.buffer, slot.byteOffset, slot.length);
  const length = view.getUint32(4, true);
  if (length > LIST_MOST) return undefined;
  if (view.getUint32(0, true) !== crc32(slot.subarray(4, HEAD + length))) return undefined;
  return { generation: getInteger(view, 8), list: slot.subarray(HEAD, HEAD + length) };
}

/** Writes numbers up to 2^53, as far as there is room. */
class NumberWriter {
  readonly #bytes: Uint8Array;
  #length = 0;

  constructor(most: number) {
    this.#bytes = new Uint8Array(most);
  }

  /** Whether there was no room for something. */
  get isOver(): boolean {
    return this.#length > this.#bytes.length;
  }

  write(value: number): void {
    for (; value >= 128; value = Math.floor(value / 128)) {
      this.#bytes[this.#length++] = value % 128 + 128;
    }
    this.#bytes[this.#length++] = value;
  }

  written(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }
}

/** Reads them; NaN where the bytes end before. */
class NumberReader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  read(): number {
    let value = 0;
    for (let unit = 1; this.left > 0; unit *= 128) {
      const byte = this.#bytes[this.#at++]!;
      value += byte % 128 * unit;
      if (byte < 128) return value;
    }
    return NaN;
  }
}
