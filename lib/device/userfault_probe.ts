/**
 * What this host lets this user do with userfaultfd: page memory in, and notice writes to it.
 *
 * @module
 */
import { probePagemapScan } from "../../ffi/pagemap.ts";
import { probeUserfault, UFFD_FEATURE, type UserfaultWayProbe } from "../../ffi/userfault_open.ts";
import type { Probe } from "./device.ts";

/** Whether memory can be paged in, by which way, and how writes to it are noticed. */
export function probeMemory(): Probe {
  const { ways, features } = probeUserfault();
  const open = ways.find(({ available }) => available);
  if (open === undefined) {
    const [reason, fix] = parts(ways);
    return { name: "userfault", available: false, reason, fix };
  }
  const modes = [
    `by ${WAY_NAMES[open.way]}`,
    writes(features),
    (features & UFFD_FEATURE.POISON) !== 0
      ? "SIGBUS for what is lost"
      : "no SIGBUS before Linux 6.6",
  ];
  if ((features & UFFD_FEATURE.MISSING_HUGETLBFS) !== 0) modes.push("huge pages");
  const probe = { name: "userfault", available: true, reason: modes.join("; ") };
  if (open.way !== "user mode") return probe;
  const [, fix] = parts(ways);
  return { ...probe, reason: `${probe.reason}; system calls on missing pages fail (EFAULT)`, fix };
}

const WAY_NAMES: Readonly<Record<UserfaultWayProbe["way"], string>> = {
  "device": "/dev/userfaultfd",
  "syscall": "the system call",
  "user mode": "the system call in user mode",
};

function writes(features: number): string {
  if ((features & UFFD_FEATURE.WP_ASYNC) !== 0 && probePagemapScan().available) {
    return "writes noticed by WP_ASYNC and PAGEMAP_SCAN";
  }
  const faults = (features & UFFD_FEATURE.PAGEFAULT_FLAG_WP) !== 0;
  return faults ? "writes noticed by write-protect faults" : "writes noticed by comparing";
}

/** The reason and the remedy of the first way, which are one text in its error. */
function parts(ways: readonly UserfaultWayProbe[]): [string, string] {
  const reason = ways[0]?.reason ?? "there is no way to userfaultfd";
  const split = reason.lastIndexOf("; ");
  return split < 0 ? [reason, reason] : [reason.slice(0, split), reason.slice(split + 2)];
}
