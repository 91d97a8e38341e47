/**
 * Chooses a device and attaches a hosted backend by it.
 *
 * @module
 */
import { UnsupportedError, UsageError } from "../backend/errors.ts";
import type { DeviceHost } from "../host/hosted_part.ts";
import type { Device, DeviceChoice, DeviceKind, Probe } from "./device.ts";
import { attachFuse } from "./fuse.ts";
import { attachLoop } from "./loop.ts";
import { attachNbd } from "./nbd.ts";
import { PROBES, sweepStale } from "./probe.ts";
import { attachUserfault, type UserfaultOptions } from "./userfault.ts";

/** How {@linkcode attach} attaches. */
export interface AttachOptions {
  /** The device, or `auto`. */
  choice: DeviceChoice;
  /** Whether a block device is wanted, or a file or slice, which go through fewer layers as FUSE. */
  as: "path" | "file" | "slice";
  /** Whether it may only be read. */
  readOnly: boolean;
  /** The directory of the FUSE file; chosen unless told. */
  at?: string | undefined;
  /** How memory is paged in, where the device is `userfault`. */
  memory?: MemoryChoice | undefined;
}

/** What a user may choose about memory that is paged in. */
export type MemoryChoice = Omit<UserfaultOptions, "readOnly">;

/** What {@linkcode attach} made, and why that. */
export interface Attached {
  /** The device. */
  device: Device;
  /** Why this kind. */
  reason: string;
}

const SECTOR = 512;

/**
 * Attaches, after devices that dead processes left behind were cleaned up.
 *
 * @throws {UsageError} the device cannot be what the options ask for.
 * @throws {UnsupportedError} this host has no such device; the message says why and what to do.
 */
export async function attach(host: DeviceHost, options: AttachOptions): Promise<Attached> {
  await sweepStale();
  const { kind, reason } = chooseDevice(options, host.facts.size);
  if (kind === "nbd" && options.at !== undefined) {
    throw new UsageError("Cannot choose where an nbd device appears", {
      hint: "leave out the place, or use the fuse or loop device",
    });
  }
  return { device: await attachKind(host, kind, options), reason };
}

/**
 * Whether this process will map what its host serves, so that the host must live in another one (see
 * `process_link.ts`); memory that is paged in by userfaultfd has no such need.
 */
export function isMapped({ choice, as }: Pick<AttachOptions, "choice" | "as">): boolean {
  if (as !== "slice" || choice === "userfault") return false;
  return choice !== "auto" || PROBES.fuse().available || !PROBES.userfault().available;
}

async function attachKind(
  host: DeviceHost,
  kind: DeviceKind,
  { readOnly, at, memory }: AttachOptions,
): Promise<Device> {
  const { size } = host.facts;
  if (kind === "userfault") return await attachUserfault(host, { ...memory, readOnly });
  if (kind === "nbd") {
    return await attachNbd({
      size,
      readOnly,
      serve: (fd, flags, onDetached) => host.serveNbd(fd, flags, onDetached),
    });
  }
  const file = {
    readOnly,
    at,
    serve: (
      fd: number,
      served: { fileName: string; readOnly: boolean },
      onDetached: (error: Error | undefined) => void,
    ) => host.serveFuse(fd, served, onDetached),
  };
  return kind === "fuse" ? await attachFuse(file) : await attachLoop({ ...file, size });
}

/** The device for a choice on this host. Throws as {@linkcode attach} does. */
export function chooseDevice(
  options: AttachOptions,
  size: number,
): { kind: DeviceKind; reason: string } {
  const { choice, as, at } = options;
  if (choice === "userfault" && (as !== "slice" || at !== undefined)) {
    throw new UsageError("Cannot show memory at a path", {
      hint: "the userfault device makes slices: mount as slice, or choose another device",
    });
  }
  if (choice !== "auto") {
    const probe = PROBES[choice]();
    if (probe.available) return { kind: choice, reason: "it was asked for" };
    throw new UnsupportedError(`Cannot use the ${choice} device as ${probe.reason}`, fixOf(probe));
  }
  const refusals: string[] = [];
  for (const kind of preference(options)) {
    const refusal = refusalOf(kind, options, size);
    if (refusal === undefined) return { kind, reason: reasonFor(refusals) };
    refusals.push(`${kind}: ${refusal}`);
  }
  throw new UnsupportedError(`Cannot mount on this host (${refusals.join("; ")})`, {
    hint: "telemap doctor says how to mend it",
  });
}

/** Kinds from best to worst: one layer and the kernel's own client first. */
function preference({ as, at }: AttachOptions): DeviceKind[] {
  if (as === "slice") return ["fuse", "userfault", "nbd", "loop"];
  if (as === "file") return ["fuse", "nbd", "loop"];
  return at === undefined ? ["nbd", "loop", "fuse"] : ["loop", "fuse"];
}

function refusalOf(kind: DeviceKind, { as }: AttachOptions, size: number): string | undefined {
  const block = kind === "nbd" || kind === "loop";
  if (block && (size === 0 || size % SECTOR !== 0)) {
    return `a block device cannot have ${size} bytes`;
  }
  const probe = PROBES[kind]();
  if (!probe.available) return probe.reason;
  return as === "slice" && size === 0 ? "nothing can be mapped of 0 bytes" : undefined;
}

function reasonFor(refusals: readonly string[]): string {
  return refusals.length === 0 ? "the best there is" : `the best left (${refusals.join("; ")})`;
}

function fixOf({ fix }: Probe): { hint?: string } {
  return fix === undefined ? {} : { hint: fix };
}
