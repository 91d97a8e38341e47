/**
 * What this host can do with NBD devices.
 *
 * @module
 */
import { openNbdFamily } from "../../ffi/nbd.ts";
import type { Probe } from "./device.ts";
import { hasAdminCapability } from "./privilege.ts";
import { readAttribute } from "./sysfs.ts";

/** Whether this user can attach an NBD device here. */
export function probeNbd(): Probe {
  const name = "nbd";
  const missing = (reason: string, fix: string): Probe => ({ name, available: false, reason, fix });
  using netlink = openNbdFamily();
  const hasDevices = readAttribute("/sys/block/nbd0/size") !== undefined;
  if (netlink === undefined && !hasDevices) return missing(...absence());
  if (!hasAdminCapability()) {
    return missing("only root may attach NBD devices", "run as root (CAP_SYS_ADMIN)");
  }
  const way = netlink === undefined ? "ioctl; netlink does not reach it here" : "netlink";
  return { name, available: true, reason: `the kernel has an NBD client, by ${way}` };
}

/** Why the kernel has no NBD client now, and what to do. */
function absence(): [reason: string, fix: string] {
  const release = readAttribute("/proc/sys/kernel/osrelease") ?? "";
  if (hasModule(release)) return ["the kernel module nbd is not loaded", "modprobe nbd"];
  return [
    `there is no module nbd for this kernel (${release})`,
    "install the kernel's extra modules and modprobe nbd, or use the loop or fuse device",
  ];
}

function hasModule(release: string): boolean {
  try {
    return /\/nbd\.ko\b/m.test(Deno.readTextFileSync(`/lib/modules/${release}/modules.dep`));
  } catch {
    return false;
  }
}
