/**
 * Tells regions apart for clients that reconnect: whether what a server serves after a restart is
 * still the region that they were connected to.
 *
 * @module
 */
import { createHash, randomBytes } from "node:crypto";
import { parseLocalUrl } from "../backend/local_url.ts";
import type { PortableSource } from "./source.ts";

const ID_BYTES = 16;

/**
 * 16 bytes that stay the same as long as the source names the same bytes. What lives in memory, or
 * in an object of this process, is another region whenever it is opened anew.
 */
export function regionId(source: PortableSource): Uint8Array {
  const url = sourceUrl(source);
  const local = url === undefined ? undefined : parseLocalUrl(url);
  if (url === undefined || local?.scheme === "memory") return randomBytes(ID_BYTES);
  const hash = createHash("sha256");
  if (local === undefined) {
    hash.update(url);
  } else {
    // A file that was removed and made again is another one, though its name is the same.
    const { dev, ino } = Deno.statSync(local.path);
    hash.update(`${local.scheme} ${dev} ${ino} ${Deno.realPathSync(local.path)}`);
  }
  return hash.digest().subarray(0, ID_BYTES);
}

/** 16 bytes that are others whenever this is called: a server that may have lost its memory. */
export function instanceId(): Uint8Array {
  return randomBytes(ID_BYTES);
}

function sourceUrl(source: PortableSource): string | undefined {
  if (source.kind === "url") return source.url;
  return source.kind === "shared" && source.shared.kind === "file" ? source.shared.url : undefined;
}
