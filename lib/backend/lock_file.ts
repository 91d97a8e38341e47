/**
 * Keeps other processes, and others in this one, off what a file stands for.
 *
 * @module
 */
import { closeSync, openSync } from "node:fs";
import { ERRNO, errno, SystemError } from "../../ffi/errno.ts";
import { flock, LOCK, O } from "../../ffi/file.ts";
import { nodeCall } from "../../ffi/node_error.ts";

/** How {@linkcode lockFile} locks. */
export interface LockFileOptions {
  /** What is locked by it, for messages. */
  subject: string;
  /** Lock it together with other readers, and do not make the file. */
  readOnly?: boolean;
}

/**
 * Opens a file, makes it where it is not there, and locks it; answers the descriptor, which holds
 * the lock until it is closed. Throws {@linkcode SystemError} (EAGAIN: in use; ENOENT, EACCES, …).
 */
export function lockFile(path: string, options: LockFileOptions): number {
  const { subject, readOnly = false } = options;
  const flags = readOnly ? O.RDONLY : O.RDWR | O.CREAT;
  const fd = nodeCall("open", path, () => openSync(path, flags, 0o666));
  if (flock(fd, (readOnly ? LOCK.SH : LOCK.EX) | LOCK.NB) === 0) return fd;
  const error = errno();
  closeSync(fd);
  const hint = error === ERRNO.EAGAIN
    ? "it is in use by another process, or opened twice in this one"
    : "its file system must support flock";
  throw new SystemError({ syscall: "lock", errno: error, subject, hint });
}
