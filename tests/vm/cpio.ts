/**
 * Writes cpio archives of the "newc" kind, which the kernel unpacks as its first file system
 * (Documentation/driver-api/early-userspace/buffer-format.rst).
 *
 * @module
 */

/** A file, or a directory where there is no `data`. */
export interface ArchiveEntry {
  /** The path without a leading slash; directories come before what they hold. */
  path: string;
  /** Permission bits, e.g. 0o755. */
  mode: number;
  /** The content of a regular file. */
  data?: Uint8Array;
}

const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;
const TRAILER = "TRAILER!!!";

/** The archive of these entries. */
export function writeCpio(entries: ArchiveEntry[]): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  entries.forEach((entry, index) => {
    const data = entry.data ?? new Uint8Array();
    const type = entry.data === undefined ? S_IFDIR : S_IFREG;
    parts.push(header(entry.path, index + 1, type | entry.mode, data.length), padded(data));
  });
  parts.push(header(TRAILER, 0, 0, 0));
  return concatenate(parts);
}

/** The fields in the order of the format, eight hexadecimal digits each, and the name. */
function header(path: string, inode: number, mode: number, size: number): Uint8Array {
  const name = new TextEncoder().encode(path + "\0");
  const links = mode & S_IFDIR ? 2 : 1;
  // ino, mode, uid, gid, nlink, mtime, filesize, device and rdevice (major, minor), namesize, check
  const fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name.length, 0];
  const text = "070701" + fields.map((field) => field.toString(16).padStart(8, "0")).join("");
  return padded(concatenate([new TextEncoder().encode(text), name]));
}

function padded(bytes: Uint8Array): Uint8Array {
  const length = Math.ceil(bytes.length / 4) * 4;
  return length === bytes.length
    ? bytes
    : concatenate([bytes, new Uint8Array(length - bytes.length)]);
}

function concatenate(parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
