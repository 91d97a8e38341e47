/**
 * Who owns a region of this host, by the record beside it; and how that is settled where nobody who
 * gives it away or takes it over runs any more.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { ERRNO, SystemError } from "../../ffi/errno.ts";
import { FencedError, UsageError } from "../backend/errors.ts";
import { HandoverFile, readHandover } from "../backend/handover_file.ts";
import { holderOf } from "../backend/handover_lock.ts";
import type { HandoverRecord } from "../backend/handover_record.ts";
import { lookIntoJournal } from "../chunk/journal_file.ts";
import { type HandoverRole, roleOf, settle, type Verdict } from "../migration/settlement.ts";
import { openUnfenced } from "./open_backend.ts";
import { type HandoverPlace, handoverPlace } from "./handover_place.ts";
import { regionId } from "./region_id.ts";

/** A run of bytes. */
export interface AbsentRange {
  /** Where it begins. */
  readonly offset: number;
  /** Its bytes. */
  readonly length: number;
}

/** What of a region is not here yet, by the journal beside it. */
export interface Absent {
  /** Bytes of the region. */
  readonly size: number;
  /** Bytes that are not here: they read as zeroes, or as what was here before. */
  readonly bytes: number;
  /** The first of them, at most {@linkcode RANGES_MOST}. */
  readonly ranges: readonly AbsentRange[];
}

/** What is known of who owns a region. */
export interface Ownership {
  /** The region, as it was asked for. */
  readonly url: string;
  /** Tells it from others, in hexadecimal digits: of a copy, the id of what it is copied from. */
  readonly region: string | undefined;
  /** The record. */
  readonly record: HandoverRecord;
  /** Which side has it. */
  readonly role: HandoverRole;
  /** What it comes to. */
  readonly verdict: Verdict;
  /** Whether it can be opened to be written here. */
  readonly writable: boolean;
  /** The process that seeds, leeches or settles it now, as far as the kernel tells. */
  readonly holder: number | undefined;
  /** Of a copy: what is not here; undefined where nothing tells. */
  readonly absent: Absent | undefined;
}

/** What {@linkcode recoverOwnership} came to. */
export interface Recovery {
  /** How it stood before. */
  readonly before: Ownership;
  /** How it stands now. */
  readonly after: Ownership;
}

/** Ranges that are told of. */
export const RANGES_MOST = 1000;

/** Throws `UsageError` where the URL names no region that has such a record. */
export function ownedPlace(url: string): HandoverPlace {
  const place = handoverPlace(url);
  if (place !== undefined) return place;
  throw new UsageError(`Cannot tell who owns ${url}`, {
    hint: "name a region of this host that outlives its process: file:/path or dir:/path",
  });
}

/**
 * Tells who owns a region; locks and changes nothing.
 *
 * @throws {UsageError} It is no region that has a record.
 * @throws {IntegrityError} The record is damaged.
 * @throws {SystemError} ENOENT: there is no such region, and no record; EACCES, …
 */
export async function inspectOwnership(url: string): Promise<Ownership> {
  return await lookAt(url, holderOf(ownedPlace(url).path));
}

async function lookAt(url: string, holder: number | undefined): Promise<Ownership> {
  const { path, region } = ownedPlace(url);
  const record = readHandover(path);
  if (record.time === 0 && !existsSync(region)) {
    const hint = "check the path";
    throw new SystemError({ syscall: "open", errno: ERRNO.ENOENT, subject: region, hint });
  }
  const role = roleOf(record), { verdict } = settle(record);
  const journal = role === "target" && existsSync(region) ? await lookIntoJournal(url) : undefined;
  const own = existsSync(region) ? regionId({ kind: "url", url }) : undefined;
  return {
    ...{ url, record, role, verdict, writable: verdict === "owned", holder },
    region: (role === "target" ? journal?.header.remote : own)?.toHex(),
    absent: journal && absentOf(journal),
  };
}

/**
 * Settles a record that a process left behind, as far as it can be by itself. With `sourceIsDead`, a
 * target becomes the owner of what it has: safe only where the source never comes back.
 *
 * @throws {SystemError} EBUSY: somebody seeds or leeches it; ENOSPC, EIO, …: ask again what holds.
 * @throws {FencedError} With `sourceIsDead`: nothing of the region is here.
 * @throws {Error} As {@linkcode inspectOwnership} does.
 */
export async function recoverOwnership(
  url: string,
  options: { sourceIsDead?: boolean } = {},
): Promise<Recovery> {
  const first = await inspectOwnership(url);
  // Of a region that never moved there is nothing to settle, and its directory may be read-only.
  if (first.record.time === 0 && first.holder === undefined) return { before: first, after: first };
  using file = HandoverFile.lock(ownedPlace(url).path);
  // Also makes durable what is found.
  const { record } = file;
  const before = await lookAt(url, undefined);
  const { write } = settle(record, options);
  if (write === undefined) return { before, after: before };
  if (before.absent === undefined) {
    throw new FencedError(`Cannot make ${url} the region as nothing of it is known to be here`, {
      hint: "remove it with what lies beside it, and start from a copy",
    });
  }
  const region = await openUnfenced(url);
  try {
    await region.flush();
  } finally {
    await region.close();
  }
  file.write({ ...write, leech: record.leech, peer: record.peer });
  return { before, after: await lookAt(url, undefined) };
}

function absentOf(
  { header, local }: NonNullable<Awaited<ReturnType<typeof lookIntoJournal>>>,
): Absent {
  const { size, chunkSize } = header;
  const ranges: AbsentRange[] = [];
  let bytes = 0, from: number | undefined;
  for (let chunk = 0; chunk <= local.length; chunk++) {
    const isAbsent = chunk < local.length && !local.has(chunk);
    if (isAbsent) from ??= chunk;
    if (isAbsent || from === undefined) continue;
    const offset = from * chunkSize;
    const length = Math.min(chunk * chunkSize, size) - offset;
    bytes += length;
    if (ranges.length < RANGES_MOST) ranges.push({ offset, length });
    from = undefined;
  }
  return { size, bytes, ranges };
}
