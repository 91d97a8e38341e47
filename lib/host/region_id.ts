/**
 * Tells regions apart for clients that reconnect: whether what a server serves after a restart is
 * still the region that they were connected to, with all that was written to it.
 *
 * @module
 */
import { createHash, randomBytes } from "node:crypto";
import { readKernelText } from "../../ffi/file.ts";
import { parseLocalUrl } from "../backend/local_url.ts";
import { splitDelayUrl } from "../chunk/delay_url.ts";
import { splitPartUrl } from "./part_url.ts";
import type { PortableSource } from "./source.ts";

const ID_BYTES = 16;

/**
 * 16 bytes that stay the same as long as the source names the same bytes; `version` is that of the
 * backend, where it has one. What lives in memory, or in an object of this process, is another
 * region whenever it is opened anew.
 */
export function regionId(source: PortableSource, version = ""): Uint8Array {
  const parts = partsOf(source);
  if (parts !== undefined) return joined(parts.map((part) => regionId(part)));
  const url = sourceUrl(source);
  const part = url === undefined ? undefined : splitPartUrl(url);
  if (part !== undefined) {
    return partId(regionId({ kind: "url", url: part.inner }, version), part.name);
  }
  const local = url === undefined ? undefined : parseLocalUrl(url);
  if (url === undefined || local?.scheme === "memory") return randomBytes(ID_BYTES);
  const hash = createHash("sha256");
  if (local === undefined) {
    hash.update(version === "" ? url : `${url} ${version}`);
  } else if (local.scheme === "pattern") {
    hash.update(`pattern ${local.size} ${local.seed ?? 0}`);
  } else {
    // A file that was removed and made again is another one, though its name and often its inode
    // are the same.
    const { dev, ino, birthtime } = Deno.statSync(local.path);
    const born = birthtime?.getTime() ?? 0;
    hash.update(`${local.scheme} ${dev} ${ino} ${born} ${Deno.realPathSync(local.path)}`);
  }
  return hash.digest().subarray(0, ID_BYTES);
}

/**
 * 16 bytes that change whenever writes that were acknowledged, but not flushed, may have been lost.
 * Files and directories hand every write to the kernel before they acknowledge it, so a server that
 * is killed loses nothing: only the end of this boot of the machine can. All else may be lost with
 * the process.
 */
export function instanceId(source: PortableSource): Uint8Array {
  const parts = partsOf(source);
  if (parts !== undefined) return joined(parts.map((part) => instanceId(part)));
  const url = sourceUrl(source);
  const part = url === undefined ? undefined : splitPartUrl(url);
  if (part !== undefined) return instanceId({ kind: "url", url: part.inner });
  const local = url === undefined ? undefined : parseLocalUrl(url);
  if (local === undefined || local.scheme === "memory") return randomBytes(ID_BYTES);
  const boot = readKernelText("/proc/sys/kernel/random/boot_id");
  // Hashed, as it goes to whoever connects.
  return createHash("sha256").update(`telemap ${boot}`).digest().subarray(0, ID_BYTES);
}

/** The id of a part of a group that has the other one. */
export function partId(group: Uint8Array, name: string): Uint8Array {
  return createHash("sha256").update(`part ${name} of `).update(group).digest().subarray(
    0,
    ID_BYTES,
  );
}

/** What a group is made of; undefined for one region. */
function partsOf(source: PortableSource): PortableSource[] | undefined {
  if (source.kind === "seeded") return partsOf(source.source);
  return source.kind === "group" ? source.parts.map(({ source }) => source) : undefined;
}

/** An id that is another one where any of those is. */
function joined(ids: readonly Uint8Array[]): Uint8Array {
  const hash = createHash("sha256").update(`group of ${ids.length}`);
  for (const id of ids) hash.update(id);
  return hash.digest().subarray(0, ID_BYTES);
}

/** The URL of the region itself: where it is delayed or cached, it is the same region. */
function sourceUrl(source: PortableSource): string | undefined {
  if (source.kind === "managed") return sourceUrl(source.remote);
  if (source.kind === "seeded") return sourceUrl(source.source);
  if (source.kind === "leeched") return /^memory:/i.test(source.cache) ? undefined : source.cache;
  if (source.kind === "url") {
    const delayed = splitDelayUrl(source.url);
    return delayed === undefined ? source.url : sourceUrl({ kind: "url", url: delayed.inner });
  }
  return source.kind === "shared" && source.shared.kind === "file" ? source.shared.url : undefined;
}
