/**
 * The lock on the record of who owns a region: one process at a time gives the region away, takes it
 * over or settles it. The kernel gives it back when the process ends, however that comes.
 *
 * It lies on the file of the record itself, which is made for it where there is none, and removed
 * again where nothing was written meanwhile.
 *
 * @module
 */
import { closeSync, fstatSync, statSync, unlinkSync } from "node:fs";
import { ERRNO, SystemError } from "../../ffi/errno.ts";
import { readKernelText } from "../../ffi/file.ts";
import { nodeCall } from "../../ffi/node_error.ts";
import { lockFile } from "./lock_file.ts";

/** See the module. */
export class HandoverLock {
  readonly #path: string;
  #fd: number | undefined;

  /**
   * Locks the record at a path, whose directory must be there. Throws `SystemError`: EBUSY where
   * somebody has it, and says who; EACCES, ENOSPC, …
   */
  static acquire(path: string): HandoverLock {
    for (;;) {
      const fd = openLocked(path);
      // Whoever had it may have removed the file after it was opened here: that lock keeps nobody off.
      if (isAt(fd, path)) return new HandoverLock(path, fd);
      closeSync(fd);
    }
  }

  private constructor(path: string, fd: number) {
    this.#path = path;
    this.#fd = fd;
  }

  /** Gives it back. Again: does nothing. */
  release(): void {
    if (this.#fd === undefined) return;
    const fd = this.#fd;
    this.#fd = undefined;
    try {
      const isEmpty = fstatSync(fd).size === 0 && isAt(fd, this.#path);
      if (isEmpty) nodeCall("remove", this.#path, () => unlinkSync(this.#path));
    } finally {
      closeSync(fd);
    }
  }
}

/** The process that has the lock on a record, as far as the kernel tells; undefined for nobody. */
export function holderOf(path: string): number | undefined {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  // proc_pid_locks(5); the numbers of the device as makedev(3) puts them together.
  const { dev, ino } = stat;
  const major = (dev >> 8n & 0xfffn) | (dev >> 32n & ~0xfffn);
  const minor = (dev & 0xffn) | (dev >> 12n & ~0xffn);
  const [high, low] = [major, minor].map((number) => number.toString(16).padStart(2, "0"));
  const file = `${high}:${low}:${ino}`;
  for (const line of locks().split("\n")) {
    const [, kind, , , pid, where] = line.trim().split(/\s+/);
    // Of one in another namespace the number is 0, or below.
    if (kind === "FLOCK" && where === file && Number(pid) > 0) return Number(pid);
  }
  return undefined;
}

function locks(): string {
  try {
    return readKernelText("/proc/locks");
  } catch {
    return "";
  }
}

function openLocked(path: string): number {
  try {
    return lockFile(path, { subject: path });
  } catch (error) {
    if (!(error instanceof SystemError) || error.errno !== ERRNO.EAGAIN) throw error;
    const holder = holderOf(path);
    const who = holder === undefined
      ? "another process"
      : holder === Deno.pid
      ? "this process"
      : `process ${holder}`;
    throw new SystemError({
      ...{ syscall: "lock", errno: ERRNO.EBUSY, subject: path },
      hint: `${who} seeds, leeches or recovers the region already: go on there, or end it first`,
    });
  }
}

/** Whether that file is the one of the name. */
function isAt(fd: number, path: string): boolean {
  const [opened, named] = [
    fstatSync(fd, { bigint: true }),
    statSync(path, { bigint: true, throwIfNoEntry: false }),
  ];
  return opened.ino === named?.ino && opened.dev === named.dev;
}
