/**
 * In which slot of its file a record is written next, so that a write which is cut or fails leaves
 * what holds. Pure.
 *
 * What is found in the file may be in the page cache only, left there by a process that was killed
 * before it was durable, or whose write failed. So it is written again, the same bytes in the same
 * place, before anybody acts on it: whatever a cut leaves of that, the other slot holds as before.
 *
 * A write that failed may be on the disk or not. The next one goes to the same slot, as the other is
 * the only one that is known to be durable.
 *
 * @module
 */
import {
  encodeHandover,
  type FoundHandover,
  type HandoverRecord,
  handoverSlotOffset,
} from "./handover_record.ts";

/** Bytes for the file. */
export interface SlotWrite {
  /** Where in the file. */
  readonly offset: number;
  /** One slot. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** See the module. */
export class HandoverSlots {
  #durable: number | undefined;
  #sequence: number;

  /** Over what was found in the file. */
  constructor(found: FoundHandover | undefined) {
    this.#durable = found?.slot;
    this.#sequence = found?.sequence ?? 0;
  }

  /** What makes durable that which was found. */
  static again({ record, sequence, slot }: FoundHandover): SlotWrite {
    return { offset: handoverSlotOffset(slot), bytes: encodeHandover(record, sequence) };
  }

  /** What records something; {@linkcode wrote} is to be called once it is durable. */
  next(record: HandoverRecord): SlotWrite {
    const bytes = encodeHandover(record, ++this.#sequence);
    return { offset: handoverSlotOffset(this.#slot), bytes };
  }

  /** The last write is durable. */
  wrote(): void {
    this.#durable = this.#slot;
  }

  get #slot(): number {
    return this.#durable === 0 ? 1 : 0;
  }
}
