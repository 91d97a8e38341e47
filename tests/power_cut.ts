/**
 * Disks whose power can be cut: what was written since the last flush is kept, lost or torn then,
 * sector by sector, as a seed decides.
 *
 * A {@linkcode Power} is one life of a machine or process, in which disks are opened. It ends at a
 * chosen one of all their writes and flushes, or when told. The disks stay: after
 * {@linkcode PowerCutDisk.cut} they hold what survived, and without it what a killed process leaves
 * in the page cache. Everything goes by microtasks and the seed, so that a run can be repeated.
 *
 * @module
 */
import { ERRNO, SystemError } from "../ffi/errno.ts";
import { type Awaitable, type Backend, checkRange, type Extent } from "../lib/backend/backend.ts";

/** Bytes that are written whole or not at all. */
export const SECTOR = 512;

/** Chooses a whole number from 0 to below `limit`. */
export type Chooser = (limit: number) => number;

/** A chooser that chooses the same for the same seed (mulberry32). */
export function chooser(seed: number): Chooser {
  let state = seed >>> 0;
  return (limit) => {
    state = state + 0x6d2b79f5 >>> 0;
    let mixed = Math.imul(state ^ state >>> 15, state | 1);
    mixed ^= mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61);
    return Math.floor(((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32 * limit);
  };
}

/** What every call on a disk throws when the power is off. */
export class PowerCutError extends Error {
  /** Makes the error. */
  constructor() {
    super("The power is off");
    this.name = "PowerCutError";
  }
}

/** How a {@linkcode Power} goes. */
export interface PowerOptions {
  /** Makes all choices. */
  choose: Chooser;
  /** Writes and flushes after which it is off, the next one being under way; never unless told. */
  cutAfter?: number;
}

/** One life of a machine or process. */
export class Power {
  /** Makes all choices. */
  readonly choose: Chooser;
  /** One in so many writes and flushes fails (ENOSPC, EIO); none where it is 0. */
  failOneIn = 0;
  readonly #cutAfter: number;
  #operations = 0;
  #off = false;

  /** Switches it on. */
  constructor(options: PowerOptions) {
    this.choose = options.choose;
    this.#cutAfter = options.cutAfter ?? Infinity;
  }

  /** Writes and flushes that have begun so far. */
  get operations(): number {
    return this.#operations;
  }

  /** Whether it is off. */
  get off(): boolean {
    return this.#off;
  }

  /** Switches it off: what is under way fails, and so does all that comes. */
  cut(): void {
    this.#off = true;
  }

  /** Throws {@linkcode PowerCutError} where it is off. */
  check(): void {
    if (this.#off) throw new PowerCutError();
  }

  /** A write or flush begins; answers whether it is to fail. */
  begin(): boolean {
    this.check();
    if (this.#operations++ >= this.#cutAfter) this.#off = true;
    return this.failOneIn > 0 && this.choose(this.failOneIn) === 0;
  }

  /** Lets others go on for a while, or not; throws where the power goes meanwhile. */
  async wait(): Promise<void> {
    for (let turns = this.choose(2) * this.choose(12); turns > 0; turns--) await Promise.resolve();
    this.check();
  }
}

/** A sector as a write left it. */
interface SectorVersion {
  bytes: Uint8Array;
  /** The write, counted on that disk. */
  write: number;
}

/** A disk of zeroes; only sectors that were written take memory. */
export class PowerCutDisk {
  /** Bytes that it has. */
  readonly size: number;
  readonly #durable = new Map<number, Uint8Array>();
  /** What was written to a sector since it was last flushed, in order. */
  readonly #pending = new Map<number, SectorVersion[]>();
  #writes = 0;

  /** Makes a disk of `size` bytes. */
  constructor(size: number) {
    this.size = size;
  }

  /** Opens it for a life; may be opened again in the next one. */
  open(power: Power): Backend {
    return new PowerCutBackend(this, power);
  }

  /**
   * The power was cut: each sector that was written since the last flush becomes one of its
   * versions since then, or stays what it was flushed as.
   */
  cut(choose: Chooser): void {
    // Most times a cut takes all or nothing, which independent choices hardly ever come to.
    const way = choose(4);
    for (const [sector, versions] of this.#pending) {
      const count = versions.length;
      const kept = way === 0 ? 0 : way === 1 ? count : choose(count + 1);
      if (kept > 0) this.#durable.set(sector, versions[kept - 1]!.bytes);
    }
    this.#pending.clear();
  }

  /** Whether anything was ever written. */
  get blank(): boolean {
    return this.#writes === 0;
  }

  /** Fills the buffer with what was written last, durable or not. */
  read(buffer: Uint8Array, offset: number): void {
    this.#eachSector(offset, buffer.length, (sector, at, from, length) => {
      const bytes = this.#current(sector);
      if (bytes === undefined) buffer.fill(0, from, from + length);
      else buffer.set(bytes.subarray(at, at + length), from);
    });
  }

  /** Writes, durable from the next flush on. */
  write(buffer: Uint8Array, offset: number): void {
    const write = ++this.#writes;
    this.#eachSector(offset, buffer.length, (sector, at, from, length) => {
      const bytes = this.#current(sector)?.slice() ?? new Uint8Array(SECTOR);
      bytes.set(buffer.subarray(from, from + length), at);
      const versions = this.#pending.get(sector);
      if (versions === undefined) this.#pending.set(sector, [{ bytes, write }]);
      else versions.push({ bytes, write });
    });
  }

  /** A flush that is called now covers what is written: answers what to call at its end. */
  beginFlush(): () => void {
    const covered = this.#writes;
    return () => {
      for (const [sector, versions] of this.#pending) {
        const later = versions.findIndex(({ write }) => write > covered);
        const count = later < 0 ? versions.length : later;
        if (count === 0) continue;
        this.#durable.set(sector, versions[count - 1]!.bytes);
        if (count === versions.length) this.#pending.delete(sector);
        else versions.splice(0, count);
      }
    };
  }

  #current(sector: number): Uint8Array | undefined {
    return this.#pending.get(sector)?.at(-1)?.bytes ?? this.#durable.get(sector);
  }

  #eachSector(
    offset: number,
    length: number,
    each: (sector: number, at: number, from: number, length: number) => void,
  ): void {
    for (let from = 0; from < length;) {
      const sector = Math.floor((offset + from) / SECTOR);
      const at = offset + from - sector * SECTOR;
      const count = Math.min(SECTOR - at, length - from);
      each(sector, at, from, count);
      from += count;
    }
  }
}

/** A disk, open in one life. */
class PowerCutBackend implements Backend {
  readonly size: number;
  readonly blockSize = 1;
  readonly durable = true;
  readonly readOnly = false;
  readonly #disk: PowerCutDisk;
  readonly #power: Power;

  constructor(disk: PowerCutDisk, power: Power) {
    this.#disk = disk;
    this.#power = power;
    this.size = disk.size;
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    this.#power.check();
    checkRange(this.size, offset, buffer.length);
    this.#disk.read(buffer, offset);
    if (this.#power.choose(2) === 0) return this.#power.wait();
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    const fails = this.#power.begin();
    checkRange(this.size, offset, buffer.length);
    if (fails) {
      const sectors = this.#power.choose(Math.ceil(buffer.length / SECTOR));
      this.#disk.write(buffer.subarray(0, sectors * SECTOR), offset);
      throw new SystemError({ syscall: "write", errno: ERRNO.ENOSPC, subject: "the disk" });
    }
    this.#disk.write(buffer, offset);
    this.#power.check();
    if (this.#power.choose(2) === 0) return this.#power.wait();
  }

  zero(offset: number, length: number): Awaitable<void> {
    return this.writeAt(new Uint8Array(length), offset);
  }

  async flush(): Promise<void> {
    const fails = this.#power.begin();
    const end = this.#disk.beginFlush();
    this.#power.check();
    await this.#power.wait();
    if (fails) {
      throw new SystemError({ syscall: "fdatasync", errno: ERRNO.EIO, subject: "the disk" });
    }
    end();
  }

  extents(offset: number, length: number): Extent[] {
    checkRange(this.size, offset, length);
    const hole = this.#disk.blank;
    return length === 0 ? [] : [{ offset, length, hole, zero: hole }];
  }

  close(): void {}

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}
