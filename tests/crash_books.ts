/**
 * Books of what was written to a region, unit by unit, and of what was promised: what a unit may
 * hold after a crash, at the remote and as a mount shows it.
 *
 * @module
 */
import { assert } from "@std/assert";
import { SECTOR } from "./power_cut.ts";

/** Bytes that are written with one stamp, less than a disk writes at once. */
export const UNIT = SECTOR / 4;

/** What a unit may hold. Numbers but the stamps are indexes into those. */
interface History {
  /** What was written, in order, also where that failed; 0 stands for zeroes. */
  readonly stamps: number[];
  /** The last that has to be seen by who reads. */
  acknowledged: number;
  /** The last that a mount has to show after a crash. */
  promised: number;
  /** The last that the remote has to have after a crash. */
  promisedRemotely: number;
  /** Writes that are under way. */
  writing: number;
  /** Whether a crash left it open which one it is, and nobody has read it since. */
  open: boolean;
}

/** What a range of units is written with, or was found as. */
export interface Written {
  readonly from: number;
  readonly stamps: readonly number[];
}

/** See the module. Ranges are of units. */
export class CrashBooks {
  readonly #units: History[];
  #stamps = 0;

  /** Of a region of zeroes. */
  constructor(units: number) {
    this.#units = Array.from({ length: units }, () => ({
      ...{ stamps: [0], acknowledged: 0, promised: 0, promisedRemotely: 0 },
      ...{ writing: 0, open: false },
    }));
  }

  /** Whether some of the units are being written. */
  busy(from: number, to: number): boolean {
    return this.#units.slice(from, to).some(({ writing }) => writing > 0);
  }

  /** New stamps for units that are about to be written; none are, so that they become zero. */
  begin(from: number, to: number, zero: boolean): Written {
    const stamps = this.#units.slice(from, to).map((unit) => {
      unit.writing++;
      const stamp = zero ? 0 : ++this.#stamps;
      unit.stamps.push(stamp);
      return stamp;
    });
    return { from, stamps };
  }

  /** The write is over: it was acknowledged, or may have been done or not, also in part. */
  end({ from, stamps }: Written, acknowledged: boolean): void {
    for (let index = 0; index < stamps.length; index++) {
      const unit = this.#units[from + index]!;
      unit.writing--;
      if (!acknowledged) continue;
      unit.acknowledged = unit.stamps.length - 1;
      unit.open = false;
    }
  }

  /** A read begins; answers what checks what it found. */
  read(from: number, to: number): (bytes: Uint8Array) => void {
    const before = this.#units.slice(from, to)
      .map(({ acknowledged, stamps }) => ({ acknowledged, count: stamps.length }));
    return (bytes) => {
      for (const [index, { acknowledged, count }] of before.entries()) {
        const unit = this.#units[from + index]!;
        const stamp = stampOf(bytes, index, from + index);
        this.#check(from + index, stamp, acknowledged, "is read as");
        if (!unit.open || unit.stamps.length !== count || unit.writing > 0) continue;
        unit.acknowledged = unit.stamps.push(stamp) - 1;
        unit.open = false;
      }
    };
  }

  /** A flush or sync begins; answers what is to be called when it has succeeded. */
  flush(): (where: { remotely: boolean }) => void {
    const covered = this.#units.map(({ acknowledged }) => acknowledged);
    return ({ remotely }) => {
      for (const [index, unit] of this.#units.entries()) {
        unit.promised = Math.max(unit.promised, covered[index]!);
        if (!remotely) continue;
        unit.promisedRemotely = Math.max(unit.promisedRemotely, covered[index]!);
      }
    };
  }

  /** The mount crashed: what was not promised may be gone. */
  crashed(): void {
    for (const unit of this.#units) {
      unit.acknowledged = unit.promised;
      unit.writing = 0;
      unit.open = true;
    }
  }

  /** Holds bytes of units from `from` on, as a mount has them after a crash, to what was promised. */
  checkMount(from: number, bytes: Uint8Array): void {
    for (let unit = from; unit < from + bytes.length / UNIT; unit++) {
      const stamp = stampOf(bytes, unit - from, unit);
      this.#check(unit, stamp, this.#units[unit]!.promised, "is in a mount");
    }
  }

  /** Holds what the remote has to what was promised of it. */
  checkRemote(bytes: Uint8Array): void {
    for (const [index, unit] of this.#units.entries()) {
      this.#check(index, stampOf(bytes, index, index), unit.promisedRemotely, "is at the remote");
    }
  }

  #check(unit: number, stamp: number, least: number, what: string): void {
    const allowed = this.#units[unit]!.stamps.slice(least);
    assert(allowed.includes(stamp), `Unit ${unit} ${what} ${stamp}, and not one of ${allowed}`);
  }
}

/** The bytes that stamps stand for. */
export function bytesOf({ stamps }: Written): Uint8Array {
  const words = new Uint32Array(stamps.length * UNIT / 4);
  for (const [index, stamp] of stamps.entries()) {
    words.fill(stamp, index * UNIT / 4, (index + 1) * UNIT / 4);
  }
  return new Uint8Array(words.buffer);
}

function stampOf(bytes: Uint8Array, index: number, unit: number): number {
  const words = new Uint32Array(bytes.slice(index * UNIT, (index + 1) * UNIT).buffer);
  assert(words.every((word) => word === words[0]), `Unit ${unit} is torn`);
  return words[0]!;
}
