/**
 * How a program gets a userfaultfd: by /dev/userfaultfd or by the system call, with which features,
 * and what is in the way on this host.
 *
 * @module
 */
import { checked, ERRNO, errno, SystemError } from "./errno.ts";
import { close, O, open, readKernelText } from "./file.ts";
import { libc, perArch } from "./libc.ts";

/** What a userfaultfd can do beyond telling of missing anonymous pages (`UFFD_FEATURE_*`). */
export const UFFD_FEATURE = {
  PAGEFAULT_FLAG_WP: 1 << 0,
  EVENT_FORK: 1 << 1,
  EVENT_REMAP: 1 << 2,
  EVENT_REMOVE: 1 << 3,
  MISSING_HUGETLBFS: 1 << 4,
  MISSING_SHMEM: 1 << 5,
  EVENT_UNMAP: 1 << 6,
  SIGBUS: 1 << 7,
  THREAD_ID: 1 << 8,
  MINOR_HUGETLBFS: 1 << 9,
  MINOR_SHMEM: 1 << 10,
  EXACT_ADDRESS: 1 << 11,
  WP_HUGETLBFS_SHMEM: 1 << 12,
  WP_UNPOPULATED: 1 << 13,
  POISON: 1 << 14,
  WP_ASYNC: 1 << 15,
  MOVE: 1 << 16,
} as const;

/** The name of a feature. */
export type UserfaultFeature = keyof typeof UFFD_FEATURE;

// Write protection came to aarch64 later than to x86_64.
const WP_SINCE = perArch({ x86_64: "5.7", aarch64: "6.10" });

const SINCE: Readonly<Record<UserfaultFeature, string>> = {
  PAGEFAULT_FLAG_WP: WP_SINCE,
  EVENT_FORK: "4.11",
  EVENT_REMAP: "4.11",
  EVENT_REMOVE: "4.11",
  MISSING_HUGETLBFS: "4.11",
  MISSING_SHMEM: "4.11",
  EVENT_UNMAP: "4.11",
  SIGBUS: "4.14",
  THREAD_ID: "4.14",
  MINOR_HUGETLBFS: "5.13",
  MINOR_SHMEM: "5.14",
  EXACT_ADDRESS: "5.18",
  WP_HUGETLBFS_SHMEM: perArch({ x86_64: "5.19", aarch64: WP_SINCE }),
  WP_UNPOPULATED: perArch({ x86_64: "6.4", aarch64: WP_SINCE }),
  POISON: "6.6",
  WP_ASYNC: perArch({ x86_64: "6.7", aarch64: WP_SINCE }),
  MOVE: "6.8",
};

const DEVICE = "/dev/userfaultfd";
const SYSCALL = "the userfaultfd system call";
const SYS_USERFAULTFD = perArch({ x86_64: 323n, aarch64: 282n });
const USERFAULTFD_IOC_NEW = 0xaa00n;
const UFFDIO_API = 0xc018_aa3fn;
const UFFD_API = 0xaa;
const UFFD_USER_MODE_ONLY = 1;

const symbols = libc({
  // int ioctl(int fd, unsigned long request, unsigned long argument)
  ioctl: { parameters: ["i32", "usize", "usize"], result: "i32" },
  // int ioctl(int fd, unsigned long request, void *argument)
  ioctlPointer: { name: "ioctl", parameters: ["i32", "usize", "buffer"], result: "i32" },
  // long syscall(long number, ...), here int userfaultfd(int flags)
  userfaultfd: { name: "syscall", parameters: ["usize", "i32"], result: "i32" },
});

/**
 * A way to a userfaultfd, best first: `device` and `syscall` see faults of the kernel too (read(2)
 * into the memory, KVM); with `user mode` such a call fails with EFAULT instead.
 */
export type UserfaultWay = "device" | "syscall" | "user mode";

/** Every way, best first. */
const WAYS: readonly UserfaultWay[] = ["device", "syscall", "user mode"];

/** How {@linkcode openUserfault} opens. */
export interface UserfaultOptions {
  /** Features that must be there, bits of {@linkcode UFFD_FEATURE}; none unless told. */
  required?: number;
  /** Features that are used where they are there; none unless told. */
  wanted?: number;
  /**
   * Whether faults of the kernel may go untold: true asks for no more than user mode, false for no
   * less than all, and unless told it is user mode where no more is permitted.
   */
  userModeOnly?: boolean;
}

/** A userfaultfd whose features are negotiated; plain data, which other isolates can be sent. */
export interface OpenedUserfault {
  /** The descriptor: nonblocking, close-on-exec. */
  fd: number;
  /** The features in use, bits of {@linkcode UFFD_FEATURE}. */
  features: number;
  /** Whether a system call that touches a missing page fails with EFAULT instead of waiting. */
  userModeOnly: boolean;
  /** What can be asked of it, bits of `UFFD_IOCTL`. */
  ioctls: number;
}

/** This kernel lacks features that were required. */
export class UserfaultFeatureError extends Error {
  /** `UserfaultFeatureError`. */
  override readonly name = "UserfaultFeatureError";
  /** `EOPNOTSUPP`. */
  readonly code = "EOPNOTSUPP";
  /** The features that are missing. */
  readonly missing: readonly UserfaultFeature[];
  /** The Linux that has them all, e.g. `6.7`. */
  readonly since: string;

  /** Makes the error for what is missing on a kernel of that release. */
  constructor(missing: readonly UserfaultFeature[], release: string) {
    const since = missing.map((name) => SINCE[name]).reduce(later, "0");
    super(
      `Cannot use userfaultfd with ${
        missing.join(", ")
      }: Linux ${since} has that, this is ${release}`,
    );
    this.missing = missing;
    this.since = since;
  }
}

/** The names of the features in a mask. */
export function featureNames(mask: number): UserfaultFeature[] {
  const names = Object.keys(UFFD_FEATURE) as UserfaultFeature[];
  return names.filter((name) => (mask & UFFD_FEATURE[name]) !== 0);
}

/**
 * Opens a userfaultfd by the best way that is permitted, and negotiates its features.
 *
 * Throws {@linkcode SystemError} that tells what to set (EPERM, ENOSYS), or what went wrong (EMFILE,
 * ENOMEM, …), and {@linkcode UserfaultFeatureError} where the kernel lacks a required feature.
 */
export function openUserfault(options: UserfaultOptions = {}): OpenedUserfault {
  const { required = 0, wanted = 0 } = options;
  const { way, offered } = findWay(options.userModeOnly);
  const missing = featureNames(required & ~offered);
  if (missing.length > 0) throw new UserfaultFeatureError(missing, kernelRelease());
  const fd = create(way);
  try {
    const { features, ioctls } = settle(fd, required, wanted & offered);
    return { fd, features, userModeOnly: way === "user mode", ioctls };
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** One way to a userfaultfd, as this user finds it on this host. */
export interface UserfaultWayProbe {
  /** Which way. */
  way: UserfaultWay;
  /** Whether it can be gone. */
  available: boolean;
  /** Why not: the error of the attempt, with what to do; missing where it is available. */
  reason?: string;
}

/** What {@linkcode probeUserfault} found. */
export interface UserfaultProbe {
  /** Every way, best first. */
  ways: UserfaultWayProbe[];
  /** The features that the kernel offers, bits of {@linkcode UFFD_FEATURE}; 0 where no way is open. */
  features: number;
}

/** What this host has, for this user. Throws nothing. */
export function probeUserfault(): UserfaultProbe {
  let features = 0;
  const ways = WAYS.map((way): UserfaultWayProbe => {
    try {
      features |= offer(way).features;
      return { way, available: true };
    } catch (error) {
      return { way, available: false, reason: error instanceof Error ? error.message : `${error}` };
    }
  });
  return { ways, features };
}

interface OpenWay {
  way: UserfaultWay;
  offered: number;
}

/** The first way that is open here, of those that are good enough, and what the kernel offers. */
function findWay(userModeOnly: boolean | undefined): OpenWay {
  const ways = userModeOnly === undefined
    ? WAYS
    : WAYS.filter((way) => (way === "user mode") === userModeOnly);
  let failure: unknown;
  for (const way of ways) {
    try {
      return { way, offered: offer(way).features };
    } catch (error) {
      if (!(error instanceof SystemError) || !CLOSED.has(error.errno)) throw error;
      failure = error;
    }
  }
  throw failure;
}

/** Errors that say that a way is closed here, and not that it failed this time. */
const CLOSED: ReadonlySet<number> = new Set([
  ERRNO.EPERM,
  ERRNO.EACCES,
  ERRNO.ENOENT,
  ERRNO.ENXIO,
  ERRNO.ENODEV,
  ERRNO.EINVAL,
  ERRNO.ENOTTY,
  ERRNO.ENOSYS,
]);

/** Makes a descriptor whose features are not negotiated. Throws {@linkcode SystemError}. */
function create(way: UserfaultWay): number {
  const flags = O.CLOEXEC | O.NONBLOCK;
  if (way === "device") return createByDevice(flags);
  const fd = symbols().userfaultfd(
    SYS_USERFAULTFD,
    way === "user mode" ? flags | UFFD_USER_MODE_ONLY : flags,
  );
  if (fd >= 0) return fd;
  throw openError(errno(), way);
}

function createByDevice(flags: number): number {
  let device: number;
  try {
    device = open(DEVICE, O.RDWR);
  } catch (error) {
    throw error instanceof SystemError ? openError(error.errno, "device") : error;
  }
  const fd = symbols().ioctl(device, USERFAULTFD_IOC_NEW, BigInt(flags));
  const failed = fd < 0 ? errno() : 0;
  close(device);
  if (fd < 0) throw openError(failed, "device");
  return fd;
}

/** The error of an attempt to open, with what to do about it. */
export function openError(failed: number, way: UserfaultWay): SystemError {
  const subject = way === "device"
    ? DEVICE
    : way === "syscall"
    ? SYSCALL
    : `${SYSCALL} in user mode`;
  return new SystemError({ syscall: "open", errno: failed, subject, hint: openHint(failed, way) });
}

function openHint(failed: number, way: UserfaultWay): string | undefined {
  switch (failed) {
    case ERRNO.EACCES:
      return `permit this user to read and write ${DEVICE}`;
    case ERRNO.EPERM:
      return way === "user mode"
        ? "let the container's seccomp profile permit userfaultfd"
        : `set vm.unprivileged_userfaultfd=1, or permit this user to read and write ${DEVICE}`;
    case ERRNO.ENOENT:
      return "Linux 6.1 or later has it; in a container, pass the device in";
    case ERRNO.ENOSYS:
      return "use a kernel that is built with CONFIG_USERFAULTFD";
    case ERRNO.EINVAL:
      return way === "user mode"
        ? "Linux 5.11 or later has it; or set vm.unprivileged_userfaultfd=1"
        : undefined;
    case ERRNO.EMFILE:
      return "raise the limit with ulimit -n";
    default:
      return undefined;
  }
}

interface Api {
  features: number;
  ioctls: number;
}

/** What the kernel offers. Asking fixes the features of a descriptor, so it is thrown away. */
function offer(way: UserfaultWay): Api {
  const fd = create(way);
  try {
    return negotiate(fd, 0);
  } finally {
    close(fd);
  }
}

/** Sets the features; answers those that are in use. EVENT_FORK is let go where it is not permitted. */
function settle(fd: number, required: number, optional: number): Api {
  const features = required | optional;
  const fork = optional & ~required & UFFD_FEATURE.EVENT_FORK;
  try {
    return { features, ioctls: negotiate(fd, features).ioctls };
  } catch (error) {
    if (!(error instanceof SystemError) || error.errno !== ERRNO.EPERM) throw error;
    return { features: features & ~fork, ioctls: negotiate(fd, features & ~fork).ioctls };
  }
}

/** UFFDIO_API: sets a descriptor's features, once; answers all that the kernel offers. */
function negotiate(fd: number, features: number): Api {
  // struct uffdio_api: api, features and ioctls of 64 bits each. Of the answer only the low halves
  // are of use: the one bit above is that of UFFDIO_API itself.
  const words = new Uint32Array([UFFD_API, 0, features, 0, 0, 0]);
  const result = symbols().ioctlPointer(fd, UFFDIO_API, words);
  const fork = (features & UFFD_FEATURE.EVENT_FORK) !== 0;
  const hint = fork ? "EVENT_FORK needs CAP_SYS_PTRACE" : undefined;
  const subject = featureNames(features).join(", ") || undefined;
  checked(result, "negotiate the features of a userfaultfd", subject, hint);
  return { features: words[2]!, ioctls: words[4]! };
}

function kernelRelease(): string {
  return readKernelText("/proc/sys/kernel/osrelease").trim();
}

/** The later of two versions such as `5.7`. */
function later(one: string, other: string): string {
  const [major = 0, minor = 0] = one.split(".").map(Number);
  const [otherMajor = 0, otherMinor = 0] = other.split(".").map(Number);
  return (major - otherMajor || minor - otherMinor) > 0 ? one : other;
}
