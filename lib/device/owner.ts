/**
 * Who made a device or mount of telemap: a tag that it carries where the kernel keeps a name for it,
 * so that what a process left behind when it was killed can be found and cleaned up.
 *
 * @module
 */
import { pidNamespace, processId, processStart } from "../../ffi/process.ts";

const TAG = /^telemap:(\d+):(\d+):(\d+)$/;

/** The tag of this process: `telemap:PID:START:NAMESPACE`, START in clock ticks after boot. */
export function ownerTag(): string {
  const pid = processId();
  return `telemap:${pid}:${processStart(pid)}:${namespaceNumber()}`;
}

/**
 * Whether a tag is telemap's and its process is gone. False for what is not a tag, and for that of
 * a process in another pid namespace (a container), which cannot be seen from here.
 */
export function isOwnerGone(tag: string): boolean {
  const [, pid, start, namespace] = TAG.exec(tag) ?? [];
  if (pid === undefined || namespace !== namespaceNumber()) return false;
  return processStart(Number(pid)) !== Number(start);
}

function namespaceNumber(): string {
  return pidNamespace().replace(/\D/g, "");
}
