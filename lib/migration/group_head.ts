/**
 * The table of a group: which regions lie in the one that moves them, and where. It is the beginning
 * of that region, so that whoever gets that knows. Pure.
 *
 * | at | bytes                                                             |
 * | -- | ----------------------------------------------------------------- |
 * |  0 | "TMGROUP\n"                                                       |
 * |  8 | u32 version, 1; all numbers are little-endian                     |
 * | 12 | u32 CRC-32 of the {@linkcode GROUP_HEAD_BYTES}, this being 0      |
 * | 16 | u32 alignment                                                     |
 * | 20 | u32 parts, 1 to {@linkcode GROUP_PARTS_MOST}                      |
 * | 24 | for each: u64 bytes, u16 bytes of the name, the name in UTF-8     |
 *
 * The table is followed by the parts in this order, each from the next multiple of the alignment.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { IntegrityError, UsageError } from "../backend/errors.ts";
import { layOut } from "../backend/layout.ts";

/** Bytes of the table, what follows its last entry being 0. */
export const GROUP_HEAD_BYTES = 32768;
/** Parts of a group. */
export const GROUP_PARTS_MOST = 64;
/** Bytes of a name. */
export const GROUP_NAME_MOST = 255;

/** A part as it is put into a table. */
export interface NamedSize {
  /** By what it is known. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
}

/** A part as it is found in a table. */
export interface GroupPart extends NamedSize {
  /** Where it begins in the region. */
  readonly offset: number;
}

const MAGIC = new TextEncoder().encode("TMGROUP\n");
const VERSION = 1;
const CRC_AT = 12;
const ENTRIES_AT = 24;

/** Makes the table. Throws {@linkcode UsageError} for parts that cannot be a group. */
export function encodeGroupHead(
  parts: readonly NamedSize[],
  alignment: number,
): Uint8Array<ArrayBuffer> {
  const names = checkNames(parts.map(({ name }) => name));
  layOut([GROUP_HEAD_BYTES, ...parts.map(({ size }) => size)], alignment);
  const head = new Uint8Array(GROUP_HEAD_BYTES), view = new DataView(head.buffer);
  head.set(MAGIC);
  view.setUint32(8, VERSION, true);
  view.setUint32(16, alignment, true);
  view.setUint32(20, parts.length, true);
  let at = ENTRIES_AT;
  for (const [index, { size }] of parts.entries()) {
    const name = names[index]!;
    view.setUint32(at, size % 2 ** 32, true);
    view.setUint32(at + 4, Math.floor(size / 2 ** 32), true);
    view.setUint16(at + 8, name.length, true);
    head.set(name, at + 10);
    at += 10 + name.length;
  }
  view.setUint32(CRC_AT, crc32(head), true);
  return head;
}

/**
 * Reads the table from the beginning of a region of `size` bytes: `head` has
 * {@linkcode GROUP_HEAD_BYTES}, or all of a smaller one.
 *
 * @throws {UsageError} it is no group, or one of another version.
 * @throws {IntegrityError} it is damaged, or does not fit the region.
 */
export function decodeGroupHead(head: Uint8Array, size: number): GroupPart[] {
  const bytes = head.slice(0, GROUP_HEAD_BYTES), view = new DataView(bytes.buffer);
  if (bytes.length < GROUP_HEAD_BYTES || !MAGIC.every((byte, at) => bytes[at] === byte)) {
    throw new UsageError("Cannot find the parts of a region that is no group", {
      hint: "take it over as one region, or seed a group",
    });
  }
  const version = view.getUint32(8, true);
  if (version !== VERSION) {
    throw new UsageError(`Cannot read the table of a group in version ${version} of its format`, {
      hint: `this telemap reads version ${VERSION}`,
    });
  }
  const crc = view.getUint32(CRC_AT, true);
  view.setUint32(CRC_AT, 0, true);
  if (crc32(bytes) !== crc) throw damaged("its checksum is wrong");
  try {
    return readParts(bytes, size);
  } catch (cause) {
    throw damaged((cause as Error).message, cause);
  }
}

/** Reads the entries of a table that is whole, but may have been made by anybody. */
function readParts(head: Uint8Array<ArrayBuffer>, size: number): GroupPart[] {
  const view = new DataView(head.buffer);
  const alignment = view.getUint32(16, true), count = view.getUint32(20, true);
  if (count > GROUP_PARTS_MOST) throw new RangeError(`It has ${count} parts`);
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const parts: NamedSize[] = [];
  for (let at = ENTRIES_AT; parts.length < count;) {
    const size = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
    const length = view.getUint16(at + 8, true);
    if (length > GROUP_NAME_MOST) throw new RangeError(`A name has ${length} bytes`);
    parts.push({ name: text.decode(head.subarray(at + 10, at + 10 + length)), size });
    at += 10 + length;
  }
  checkNames(parts.map(({ name }) => name));
  const layout = layOut([GROUP_HEAD_BYTES, ...parts.map(({ size }) => size)], alignment);
  if (layout.size !== size) throw new RangeError(`It is of ${layout.size} bytes, not ${size}`);
  return parts.map((part, index) => ({ ...part, offset: layout.offsets[index + 1]! }));
}

/** The names as bytes. Throws {@linkcode UsageError} where they are too many, too long, or no names. */
function checkNames(names: readonly string[]): Uint8Array<ArrayBuffer>[] {
  if (names.length < 1 || names.length > GROUP_PARTS_MOST) {
    throw new UsageError(`Cannot make a group of ${names.length} parts`, {
      hint: `give it 1 to ${GROUP_PARTS_MOST}`,
    });
  }
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) {
    throw new UsageError(`Cannot make a group with two parts of the name ${twice}`);
  }
  return names.map((name) => {
    const bytes = new TextEncoder().encode(name);
    if (bytes.length >= 1 && bytes.length <= GROUP_NAME_MOST && name.isWellFormed()) return bytes;
    throw new UsageError(`Cannot name a part of a group by ${bytes.length} bytes`, {
      hint: `give it a name of 1 to ${GROUP_NAME_MOST} bytes of UTF-8`,
    });
  });
}

function damaged(why: string, cause?: unknown): IntegrityError {
  return new IntegrityError(`Cannot read the table of a group: ${why}`, {
    hint: "seed it anew",
    cause,
  });
}
