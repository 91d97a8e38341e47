/**
 * /dev/fuse and sys/mount.h: a FUSE descriptor, and mounting and unmounting what is served on it.
 *
 * @module
 */
import { checked } from "./errno.ts";
import { O, open } from "./file.ts";
import { cString, libc } from "./libc.ts";

/** Flags of mount(2). */
export const MS_FLAG = { RDONLY: 1, NOSUID: 2, NODEV: 4, NOATIME: 1024 } as const;
/** Flags of umount2(2). */
export const MNT = { FORCE: 1, DETACH: 2 } as const;

const symbols = libc({
  // int mount(const char *source, const char *target, const char *type, unsigned long flags,
  //   const void *data)
  mount: { parameters: ["buffer", "buffer", "buffer", "usize", "buffer"], result: "i32" },
  // int umount2(const char *target, int flags)
  umount2: { parameters: ["buffer", "i32"], result: "i32" },
  umount2Async: {
    name: "umount2",
    parameters: ["buffer", "i32"],
    result: "i32",
    nonblocking: true,
  },
});

/** Opens `/dev/fuse`, nonblocking. Throws `SystemError` (ENOENT, EACCES, ENODEV: no FUSE here). */
export function openFuse(): number {
  return open("/dev/fuse", O.RDWR | O.NONBLOCK);
}

/** What {@linkcode mountFuse} mounts. */
export interface FuseMountOptions {
  /** The descriptor of {@linkcode openFuse}. */
  fd: number;
  /** The directory that becomes its root. */
  mountPoint: string;
  /** What mount tables show as the device. */
  source: string;
  /** What mount tables show after `fuse.` as the type. */
  subtype: string;
  /** Bits of {@linkcode MS_FLAG}. */
  flags: number;
  /** Owner as the kernel checks it, unless other users are allowed. */
  uid: number;
  /** Group, likewise. */
  gid: number;
  /** Further options of fuse(8), each with a comma before it; empty for none. */
  more: string;
}

/**
 * Mounts a directory (mount(2), fuse(4)). The server need not run yet: the kernel queues its first
 * request. Throws `SystemError` (EPERM: needs CAP_SYS_ADMIN; ENOENT, ENOTDIR, EBUSY).
 */
export function mountFuse(options: FuseMountOptions): void {
  const { fd, mountPoint, source, subtype, flags, uid, gid, more } = options;
  const data = `fd=${fd},rootmode=40000,user_id=${uid},group_id=${gid}${more}`;
  const result = symbols().mount(
    cString(source),
    cString(mountPoint),
    cString(`fuse.${subtype}`),
    BigInt(flags),
    cString(data),
  );
  checked(result, "mount a FUSE file system", mountPoint);
}

/**
 * Unmounts off this thread, with bits of {@linkcode MNT}; answers whether that succeeded (errno is
 * lost). It may wait for dirty pages to be written to the server, unless FORCE breaks the connection.
 */
export async function unmount(mountPoint: string, flags: number): Promise<boolean> {
  return await symbols().umount2Async(cString(mountPoint), flags) === 0;
}

/** Unmounts on this thread; with FORCE it waits for no server. Answers 0, or -1 with errno set. */
export function unmountHere(mountPoint: string, flags: number): number {
  return symbols().umount2(cString(mountPoint), flags);
}
