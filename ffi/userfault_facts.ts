/**
 * What can be learnt of a descriptor that another process says is its userfaultfd, without asking
 * the descriptor itself: whether it is one, and which features its process negotiated.
 *
 * @module
 */
import { readKernelText, readLink } from "./file.ts";

/** Whether a descriptor of this process is a userfaultfd. Throws `SystemError` (ENOENT: not open). */
export function isUserfault(fd: number): boolean {
  return describeDescriptor(fd) === "anon_inode:[userfaultfd]";
}

/** What a descriptor of this process is for, for people: a path, or e.g. `pipe:[4711]`. */
export function describeDescriptor(fd: number): string {
  return readLink(`/proc/self/fd/${fd}`);
}

/** The kernel's own mark of a descriptor whose features are negotiated. */
const INITIALIZED = 2 ** 31;

/**
 * The features that were negotiated for a userfaultfd, bits of `UFFD_FEATURE`, as the kernel tells of
 * them (`userfaultfd_show_fdinfo` in fs/userfaultfd.c); undefined for another descriptor.
 */
export function userfaultFeatures(fd: number): number | undefined {
  const text = readKernelText(`/proc/self/fdinfo/${fd}`);
  const [, bits] = /^API:\s*aa:([0-9a-f]+):/m.exec(text) ?? [];
  return bits === undefined ? undefined : Number(`0x${bits}`) % INITIALIZED;
}
