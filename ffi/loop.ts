/**
 * linux/loop.h and, as far as it takes, linux/fs.h: binding a file to a loop device, and letting it
 * go.
 *
 * Binding asks the file system of the file for its state, and letting go may write to it; where that
 * file system is served by this process, neither may happen on a thread that its server needs. So
 * both run off this thread, and their errno is lost; sysfs tells how it stands.
 *
 * @module
 */
import { checked } from "./errno.ts";
import { close, O, open } from "./file.ts";
import { libc } from "./libc.ts";

/** Flags of a loop device. */
export const LO_FLAGS = { READ_ONLY: 1, DIRECT_IO: 16 } as const;

const LOOP_CLR_FD = 0x4c01n;
const LOOP_CONFIGURE = 0x4c0an;
const LOOP_CTL_GET_FREE = 0x4c82n;
const BLKGETSIZE64 = 0x8008_1272n;
/** `struct loop_config`: fd, block size, `struct loop_info64`, reserved. */
const CONFIG = { FD: 0, BLOCK_SIZE: 4, FLAGS: 8 + 52, FILE_NAME: 8 + 56, SIZE: 304 } as const;
const FILE_NAME_BYTES = 63;

const symbols = libc({
  // int ioctl(int fd, unsigned long request, ...), here with no third argument
  ioctl: { parameters: ["i32", "usize", "usize"], result: "i32" },
  // int ioctl(int fd, unsigned long request, void *argument)
  ioctlPointer: { name: "ioctl", parameters: ["i32", "usize", "buffer"], result: "i32" },
  ioctlAsync: {
    name: "ioctl",
    parameters: ["i32", "usize", "buffer"],
    result: "i32",
    nonblocking: true,
  },
});

/**
 * The number of a loop device that nobody uses yet, made if need be. Somebody else may bind it
 * first. Throws `SystemError` (ENOENT: no loop driver; EACCES).
 */
export function freeLoopDevice(): number {
  const control = open("/dev/loop-control", O.RDWR);
  try {
    const number = symbols().ioctl(control, LOOP_CTL_GET_FREE, 0n);
    return checked(number, "find a free loop device", "/dev/loop-control");
  } finally {
    close(control);
  }
}

/** How {@linkcode bindLoop} binds. */
export interface LoopBinding {
  /** The file; the device holds it open itself. */
  backing: number;
  /** The logical block size in bytes. */
  blockSize: number;
  /** Bits of {@linkcode LO_FLAGS}. */
  flags: number;
  /** The file as losetup(8) shows it, cut to 63 bytes. */
  fileName: string;
}

/** Binds a file to an open loop device, off this thread; answers whether that succeeded. */
export async function bindLoop(device: number, binding: LoopBinding): Promise<boolean> {
  const bytes = new Uint8Array(CONFIG.SIZE);
  const config = new DataView(bytes.buffer);
  config.setUint32(CONFIG.FD, binding.backing, true);
  config.setUint32(CONFIG.BLOCK_SIZE, binding.blockSize, true);
  config.setUint32(CONFIG.FLAGS, binding.flags, true);
  const name = new TextEncoder().encode(binding.fileName).subarray(0, FILE_NAME_BYTES);
  bytes.set(name, CONFIG.FILE_NAME);
  return await symbols().ioctlAsync(device, LOOP_CONFIGURE, bytes) === 0;
}

/**
 * Lets go of the file, off this thread, once nobody has the device open any more; answers false
 * where it is not bound.
 */
export async function unbindLoop(device: number): Promise<boolean> {
  return await symbols().ioctlAsync(device, LOOP_CLR_FD, null) === 0;
}

/** As {@linkcode unbindLoop}, on this thread. */
export function unbindLoopHere(device: number): boolean {
  return symbols().ioctl(device, LOOP_CLR_FD, 0n) === 0;
}

/** Bytes of a block device. Throws `SystemError`. */
export function blockDeviceSize(device: number): number {
  const size = new BigUint64Array(16);
  checked(symbols().ioctlPointer(device, BLKGETSIZE64, size), "read the size of a block device");
  return Number(size[0]!);
}
