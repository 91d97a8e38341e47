/**
 * The record of who owns a region, as bytes. Pure.
 *
 * It lies in a file of two slots of 4096 bytes, of which the first 512 are used; all numbers are
 * little-endian:
 *
 * | at | slot                                  | at | slot                                   |
 * | -- | ------------------------------------- | -- | -------------------------------------- |
 * |  0 | 8 bytes `"TMOWNER\n"`                 | 40 | u64 when, in ms since 1970             |
 * |  8 | u32 version                           | 48 | 16 bytes id of the leecher, 0: nobody  |
 * | 12 | u32 CRC-32 of 512 bytes, this being 0 | 64 | u32 1 promoted                         |
 * | 16 | u64 sequence number, from 1           | 68 | u16 bytes of the peer's URL            |
 * | 24 | u64 epoch                             | 70 | the peer's URL, UTF-8                  |
 * | 32 | u32 state (1 owner, 2 receiving,      |    |                                        |
 * |    | 3 confirming, 4 taken, 5 given,       |    |                                        |
 * |    | 6 released), then u32 0               |    |                                        |
 *
 * What holds is the slot of the higher sequence number of those whose CRC is right. A write goes to
 * the other slot, so that one which is torn leaves the record as it was.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { IntegrityError, UsageError } from "./errors.ts";

/** Who owns a region, as it is recorded beside it. */
export type HandoverState =
  /** It is owned here, and whole. */
  | "owner"
  /** It is being copied from a source that owns it. */
  | "receiving"
  /** It may be owned here, or by the source: only the source can tell. */
  | "confirming"
  /** It is owned here, and what is absent still lies at the source. */
  | "taken"
  /** It was given away, and must never be written again. */
  | "given"
  /** It was given away, and the new owner has all of it. */
  | "released";

/** What the record says. */
export interface HandoverRecord {
  /** Who owns the region. */
  readonly state: HandoverState;
  /** The epoch that this came about with; 0 for a region that never moved. */
  readonly epoch: number;
  /** Id in hexadecimal digits of the leecher that it is about, {@linkcode NOBODY} for none. */
  readonly leech: string;
  /** URL of the other side, as far as it is known; "" for none. */
  readonly peer: string;
  /** When it was written, in ms since 1970. */
  readonly time: number;
  /** Whether the user made this side the owner without asking the source. */
  readonly promoted: boolean;
}

/** The id of no leecher. */
export const NOBODY = "0".repeat(32);

/** The record of a region that has none: it is owned here. */
export const UNRECORDED: HandoverRecord = {
  ...{ state: "owner", epoch: 0, leech: NOBODY, peer: "", time: 0, promoted: false },
};

/** Bytes of the file. */
export const HANDOVER_BYTES = 8192;

/** Bytes of a slot that are used: one sector. */
export const HANDOVER_SLOT_BYTES = 512;

/** Where a slot, 0 or 1, begins. */
export function handoverSlotOffset(slot: number): number {
  return slot * HANDOVER_BYTES / 2;
}

const MAGIC = new TextEncoder().encode("TMOWNER\n");
const VERSION = 1;
const PROMOTED = 1;
const LEECH_BYTES = 16;
const PEER = 70;
const STATES = {
  ...{ owner: 1, receiving: 2, confirming: 3, taken: 4, given: 5, released: 6 },
} as const satisfies Record<HandoverState, number>;

/** The bytes of a slot. Throws {@linkcode UsageError} where the peer's URL is over 442 bytes. */
export function encodeHandover(
  record: HandoverRecord,
  sequence: number,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HANDOVER_SLOT_BYTES);
  const view = new DataView(bytes.buffer);
  const peer = new TextEncoder().encode(record.peer);
  if (peer.length > HANDOVER_SLOT_BYTES - PEER) {
    throw new UsageError(`Cannot record ${peer.length} bytes of URL as the peer of a region`, {
      hint: `use a URL of up to ${HANDOVER_SLOT_BYTES - PEER} bytes`,
    });
  }
  const leech = Uint8Array.fromHex(record.leech);
  if (leech.length !== LEECH_BYTES) throw new RangeError(`Cannot record the id ${record.leech}`);
  bytes.set(MAGIC);
  view.setUint32(8, VERSION, true);
  setInteger(view, 16, sequence);
  setInteger(view, 24, record.epoch);
  view.setUint32(32, STATES[record.state], true);
  setInteger(view, 40, record.time);
  bytes.set(leech, 48);
  view.setUint32(64, record.promoted ? PROMOTED : 0, true);
  view.setUint16(68, peer.length, true);
  bytes.set(peer, PEER);
  view.setUint32(12, crc32(bytes), true);
  return bytes;
}

/** The record that holds, and where it lies. */
export interface FoundHandover {
  /** What it says. */
  readonly record: HandoverRecord;
  /** 0 or 1. */
  readonly slot: number;
  /** Counts the writes, from 1. */
  readonly sequence: number;
}

/**
 * Finds the record in a file of {@linkcode HANDOVER_BYTES}; undefined where nothing was ever written
 * to it.
 *
 * @throws {IntegrityError} Neither slot is whole.
 * @throws {UsageError} It is of a version that is not known here, or something else.
 */
export function decodeHandover(file: Uint8Array, name: string): FoundHandover | undefined {
  const [first, second] = [decodeSlot(file, 0, name), decodeSlot(file, 1, name)];
  const found = (first?.sequence ?? 0) > (second?.sequence ?? 0) ? first : second;
  if (found !== undefined || file.every((byte) => byte === 0)) return found;
  throw new IntegrityError(`Cannot tell who owns the region by ${name} as it is damaged`, {
    hint: "restore it from a copy; remove it only where you know that no other host has the region",
  });
}

/** What a slot holds; undefined where it is not whole. */
function decodeSlot(file: Uint8Array, slot: number, name: string): FoundHandover | undefined {
  const at = handoverSlotOffset(slot);
  const bytes = file.slice(at, at + HANDOVER_SLOT_BYTES);
  const view = new DataView(bytes.buffer);
  const crc = view.getUint32(12, true);
  view.setUint32(12, 0, true);
  if (!MAGIC.every((byte, index) => bytes[index] === byte) || crc32(bytes) !== crc) {
    return undefined;
  }
  const version = view.getUint32(8, true);
  if (version !== VERSION) {
    throw new UsageError(`Cannot read ${name} as it has version ${version} of its format`, {
      hint: `this telemap reads version ${VERSION}`,
    });
  }
  const code = view.getUint32(32, true);
  const state = (Object.keys(STATES) as HandoverState[]).find((name) => STATES[name] === code);
  const peer = bytes.subarray(PEER, PEER + view.getUint16(68, true));
  if (state === undefined) return undefined;
  const record = {
    state,
    epoch: getInteger(view, 24),
    leech: bytes.subarray(48, 48 + LEECH_BYTES).toHex(),
    peer: new TextDecoder().decode(peer),
    time: getInteger(view, 40),
    promoted: (view.getUint32(64, true) & PROMOTED) !== 0,
  };
  return { record, slot, sequence: getInteger(view, 16) };
}

function setInteger(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

function getInteger(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}
