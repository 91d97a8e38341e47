/**
 * The Debian packages with the real components that tests run against, and how to get them.
 *
 * @module
 */
import { requires } from "./requires.ts";

/** A set of tests, as `tests/run.ts --set` names it. */
export type TestSet = "unit" | "device" | "peers" | "vm";

/** A package that some set needs. */
interface Package {
  /** Its name in Debian and Ubuntu. */
  name: string;
  /** What {@linkcode requires} finds once it is installed. */
  need: string;
  /** The sets that use it. */
  sets: readonly TestSet[];
}

const PACKAGES: readonly Package[] = [
  { name: "e2fsprogs", need: "mkfs.ext4", sets: ["device", "vm"] },
  { name: "fuse3", need: "fusermount3", sets: ["device"] },
  { name: "mount", need: "losetup", sets: ["device", "vm"] },
  { name: "sqlite3", need: "sqlite3", sets: ["device", "vm"] },
  { name: "gcc", need: "gcc", sets: ["unit", "device"] },
  { name: "libc6-dev", need: "/usr/include/stdio.h", sets: ["unit", "device"] },
  { name: "fish", need: "fish", sets: ["peers"] },
  { name: "fio", need: "fio", sets: ["device", "peers"] },
  { name: "libnbd-bin", need: "nbdinfo", sets: ["peers"] },
  { name: "nbd-client", need: "nbd-client", sets: ["peers", "vm"] },
  { name: "nbdkit", need: "nbdkit", sets: ["peers"] },
  { name: "openssl", need: "openssl", sets: ["peers"] },
  { name: "python3-libnbd", need: "python3:nbd", sets: ["peers"] },
  { name: "qemu-utils", need: "qemu-img", sets: ["peers"] },
  { name: "zsh", need: "zsh", sets: ["peers"] },
  { name: "busybox-static", need: "busybox", sets: ["vm"] },
  { name: "qemu-system-x86", need: "qemu-system-x86_64", sets: ["vm"] },
];

/** Seconds that apt waits for a mirror before it gives up. */
const MIRROR_TIMEOUT = 20;

/**
 * Installs what the sets need and this host lacks, where that can be done: as root, with apt.
 * What cannot be had is said on standard error; the tests that need it are skipped.
 */
export function installPackages(sets: readonly TestSet[]): void {
  const missing = PACKAGES
    .filter((one) => one.sets.some((set) => sets.includes(set)) && requires(one.need).ignore)
    .map(({ name }) => name);
  if (missing.length === 0) return;
  if (Deno.uid() !== 0 || requires("apt-get").ignore) {
    const list = missing.join(" ");
    console.error(`Some tests will be skipped; to run them: apt-get install ${list}`);
    return;
  }
  console.error(`Installing ${missing.join(" ")}`);
  apt("update");
  if (install(missing)) return;
  for (const name of missing) {
    if (!install([name])) console.error(`Cannot install ${name}: tests that need it are skipped`);
  }
}

function install(names: string[]): boolean {
  return apt("install", "--yes", "--no-install-recommends", ...names);
}

function apt(...args: string[]): boolean {
  const limits = [
    `Acquire::http::Timeout=${MIRROR_TIMEOUT}`,
    "Acquire::Retries=1",
    "Dpkg::Use-Pty=0",
  ];
  return new Deno.Command("apt-get", {
    args: ["--quiet=2", ...limits.flatMap((limit) => ["-o", limit]), ...args],
    env: { DEBIAN_FRONTEND: "noninteractive" },
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).outputSync().success;
}
