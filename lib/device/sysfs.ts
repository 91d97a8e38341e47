/**
 * Attributes of devices in /sys: small texts that are read and written at once. Plain descriptors
 * are used, as the runtime opens nothing below /sys without full permission.
 *
 * @module
 */
import { ERRNO, SystemError } from "../../ffi/errno.ts";
import { close, O, open, pread, pwrite } from "../../ffi/file.ts";

/** Attributes of /sys are a page at most; lists in /proc may be longer. */
const TEXT_SIZE = 65536;

/**
 * An attribute, or a small file of /proc, without the white space around it; undefined where there is
 * none (any more).
 */
export function readAttribute(path: string): string | undefined {
  const fd = openIfThere(path, O.RDONLY);
  if (fd === undefined) return undefined;
  const bytes = new Uint8Array(TEXT_SIZE);
  const length = pread(fd, bytes, 0);
  close(fd);
  // A device that went away since the open answers ENODEV.
  return length < 0 ? undefined : new TextDecoder().decode(bytes.subarray(0, length)).trim();
}

/** Sets an attribute; false where there is none or the kernel refuses the value. */
export function writeAttribute(path: string, value: string): boolean {
  const fd = openIfThere(path, O.WRONLY);
  if (fd === undefined) return false;
  const text = new TextEncoder().encode(value);
  const written = pwrite(fd, text, 0);
  close(fd);
  return written === text.length;
}

function openIfThere(path: string, flags: number): number | undefined {
  try {
    return open(path, flags);
  } catch (error) {
    const absent: number[] = [ERRNO.ENOENT, ERRNO.ENODEV, ERRNO.ENXIO, ERRNO.ENOTDIR, ERRNO.EACCES];
    if (error instanceof SystemError && absent.includes(error.errno)) return undefined;
    throw error;
  }
}
