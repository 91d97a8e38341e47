/**
 * The kernel's announcements about devices (NETLINK_KOBJECT_UEVENT, lib/kobject_uevent.c): a header
 * `ACTION@DEVPATH` and `KEY=VALUE` strings, each ended by NUL.
 *
 * @module
 */

/** One announcement. */
export interface Uevent {
  /** What happened: `add`, `change`, `remove`, … */
  action: string;
  /** The device below /sys, e.g. `/devices/virtual/block/nbd0`. */
  path: string;
  /** The other properties, e.g. SUBSYSTEM and DEVNAME. */
  properties: ReadonlyMap<string, string>;
}

/** Reads a datagram; undefined where it is not of the kernel's form. */
export function parseUevent(datagram: Uint8Array): Uevent | undefined {
  const [header = "", ...lines] = new TextDecoder().decode(datagram).split("\0");
  const at = header.indexOf("@");
  if (at <= 0) return undefined;
  const properties = new Map<string, string>();
  for (const line of lines) {
    const equals = line.indexOf("=");
    if (equals > 0) properties.set(line.slice(0, equals), line.slice(equals + 1));
  }
  return { action: header.slice(0, at), path: header.slice(at + 1), properties };
}
