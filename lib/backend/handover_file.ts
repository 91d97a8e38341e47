/**
 * The file beside a region that says who owns it, and the fence that it is: a region that was given
 * away is written here no more, by whomever and after however many restarts.
 *
 * It lies at `/p.handover` for `file:/p`, and at `/p/telemap.handover` for `dir:/p`. A region without
 * one is owned here. Whoever knows that no other host has the region may remove it.
 *
 * @module
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  realpathSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { O } from "../../ffi/file.ts";
import { nodeCall } from "../../ffi/node_error.ts";
import { syncDirectory } from "./disk_file.ts";
import { FencedError } from "./errors.ts";
import {
  decodeHandover,
  HANDOVER_BYTES,
  type HandoverRecord,
  UNRECORDED,
} from "./handover_record.ts";
import { HandoverLock } from "./handover_lock.ts";
import { HandoverSlots, type SlotWrite } from "./handover_slots.ts";
import type { LocalStore } from "./local_url.ts";

/** Where the record of a region lies; undefined for one in memory, which has none. */
export function handoverPath(store: LocalStore | undefined): string | undefined {
  if (store?.scheme !== "file" && store?.scheme !== "dir") return undefined;
  const path = realPathOf(store.path);
  return store.scheme === "file" ? `${path}.handover` : join(path, "telemap.handover");
}

/** The path without links, also of what is not there yet, or where its directory is not. */
function realPathOf(path: string): string {
  if (existsSync(path)) return realpathSync(path);
  const directory = dirname(path);
  return existsSync(directory) ? join(realpathSync(directory), basename(path)) : path;
}

/**
 * What is recorded in a file. Throws `IntegrityError` where that is damaged, `UsageError` where it is
 * something else, and `SystemError` where it cannot be read.
 */
export function readHandover(path: string): HandoverRecord {
  return readFound(path)?.record ?? UNRECORDED;
}

/**
 * Throws {@linkcode FencedError} where a region may not be opened, as it is owned elsewhere, or not
 * whole; where it was given away it may be read. Throws as {@linkcode readHandover} does.
 */
export function checkFence(store: LocalStore): void {
  const path = handoverPath(store);
  if (path === undefined) return;
  const { state, epoch, peer } = readHandover(path);
  const given = state === "given" || state === "released";
  if (state === "owner" || given && "readOnly" in store && store.readOnly === true) return;
  const what = given
    ? `was given away (epoch ${epoch})`
    : `comes from ${peer || "another host"} and is not whole`;
  throw new FencedError(`Cannot open ${store.scheme}:${path} as the region ${what}`, {
    hint: given
      ? "go on where it was given to, or open it with readonly"
      : "go on with telemap leech and the same cache",
  });
}

/** The record of one region, which this process alone reads and writes until it is closed. */
export class HandoverFile implements Disposable {
  /** Where it lies. */
  readonly path: string;
  readonly #lock: HandoverLock;
  #slots: HandoverSlots | undefined;

  /**
   * Locks the record, whose directory must be there; it is read once it is used. Throws `SystemError`:
   * EBUSY where somebody has it, EACCES, ….
   */
  static lock(path: string): HandoverFile {
    return new HandoverFile(path, HandoverLock.acquire(path));
  }

  private constructor(path: string, lock: HandoverLock) {
    this.path = path;
    this.#lock = lock;
  }

  /** What is recorded, durable by now. Throws as {@linkcode readHandover} and {@linkcode write} do. */
  get record(): HandoverRecord {
    this.#open();
    return readHandover(this.path);
  }

  /**
   * Records something durably: it holds when this returns. Where it throws (`SystemError`: ENOSPC,
   * EIO, …), either that or what was recorded before holds, and it may be called again.
   */
  write(record: Omit<HandoverRecord, "time" | "promoted"> & { promoted?: boolean }): void {
    const slots = this.#open();
    persist(this.path, slots.next({ promoted: false, ...record, time: Date.now() }));
    slots.wrote();
  }

  /** Lets others have it. Again: does nothing. */
  close(): void {
    this.#lock.release();
  }

  /** As {@linkcode close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #open(): HandoverSlots {
    if (this.#slots !== undefined) return this.#slots;
    const found = readFound(this.path);
    if (found !== undefined) persist(this.path, HandoverSlots.again(found));
    return this.#slots = new HandoverSlots(found);
  }
}

/** Writes into the file, which is made where it is not there, and makes it and its name durable. */
function persist(path: string, { offset, bytes }: SlotWrite): void {
  nodeCall("write", path, () => {
    // Opened anew, as a descriptor on which a sync has failed tells nothing of later ones.
    const fd = openSync(path, O.RDWR | O.CREAT, 0o666);
    try {
      ftruncateSync(fd, HANDOVER_BYTES);
      for (let done = 0; done < bytes.length;) {
        done += writeSync(fd, bytes, done, bytes.length - done, offset + done);
      }
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  });
  syncDirectory(dirname(path));
}

function readFound(path: string): ReturnType<typeof decodeHandover> {
  if (!existsSync(path)) return undefined;
  const bytes = new Uint8Array(HANDOVER_BYTES);
  bytes.set(nodeCall("read", path, () => readFileSync(path)).subarray(0, HANDOVER_BYTES));
  return decodeHandover(bytes, path);
}
