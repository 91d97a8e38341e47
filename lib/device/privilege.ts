/**
 * What this process may do on its host, as far as probes of devices have to know.
 *
 * @module
 */
import { readKernelText } from "../../ffi/file.ts";

const CAP_SYS_ADMIN = 21n;

/** Whether this process has CAP_SYS_ADMIN, which mounting and configuring devices take. */
export function hasAdminCapability(): boolean {
  const [, mask] = /^CapEff:\s*([0-9a-f]+)$/m.exec(readKernelText("/proc/self/status")) ??
    [];
  return mask !== undefined && (BigInt(`0x${mask}`) >> CAP_SYS_ADMIN & 1n) === 1n;
}

/** Whether a command is in a directory of PATH. */
export function commandExists(name: string): boolean {
  const directories = (Deno.env.get("PATH") ?? "").split(":");
  return directories.some((directory) => {
    try {
      return Deno.statSync(`${directory}/${name}`).isFile;
    } catch {
      return false;
    }
  });
}
