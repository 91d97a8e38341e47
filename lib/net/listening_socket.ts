/**
 * A listening socket until its host has it, and the path that it leaves in the file system: stale
 * ones make room, those of living servers stay.
 *
 * @module
 */
import { ERRNO, SystemError } from "../../ffi/errno.ts";
import { close } from "../../ffi/file.ts";
import { connectUnix, listenUnix } from "../../ffi/socket.ts";

/** See the module. */
export class ListeningSocket {
  /** Whether a host owns (and closes) the descriptor. */
  handedOver = false;
  /** The descriptor. */
  readonly fd: number;
  /** Where it listens, for people. */
  readonly url: string;
  readonly #path: string | undefined;
  readonly #inode: string | undefined;

  /** Takes a descriptor that listens, and the path that it made, over. */
  constructor(fd: number, url: string, path?: string) {
    this.fd = fd;
    this.url = url;
    this.#path = path;
    this.#inode = path === undefined ? undefined : inodeOf(path);
  }

  /** Removes what others see of it, unless another server took its place meanwhile. */
  cleanUp(): void {
    if (!this.handedOver) close(this.fd);
    if (this.#path === undefined || inodeOf(this.#path) !== this.#inode) return;
    Deno.removeSync(this.#path);
  }
}

/**
 * Listens on a path, for this user alone, or on `@name` in the abstract namespace. Throws
 * {@linkcode SystemError} (EADDRINUSE, ENOENT, EACCES, …).
 */
export function listenOnPath(path: string, url: string): ListeningSocket {
  const abstract = path.startsWith("@");
  if (!abstract) removeStale(path);
  return new ListeningSocket(listenUnix(path), url, abstract ? undefined : path);
}

/** Listens, and says what to do where somebody else does already. */
export function orInUse<T>(listen: () => T): T {
  try {
    return listen();
  } catch (error) {
    if (!(error instanceof SystemError) || error.errno !== ERRNO.EADDRINUSE) throw error;
    const { syscall, errno, subject } = error;
    const hint = "something is there already: stop it or choose another address";
    throw new SystemError({ syscall, errno, subject, hint });
  }
}

/** Removes the socket that a server which is gone left behind; one that is alive stays. */
function removeStale(path: string): void {
  let found: Deno.FileInfo;
  try {
    found = Deno.lstatSync(path);
  } catch {
    return;
  }
  if (found.isSocket !== true) return;
  try {
    close(connectUnix(path));
  } catch (error) {
    if (error instanceof SystemError && error.errno === ERRNO.ECONNREFUSED) Deno.removeSync(path);
  }
}

/** What tells a file from all others; undefined where there is none. */
function inodeOf(path: string): string | undefined {
  try {
    const { dev, ino } = Deno.lstatSync(path);
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}
