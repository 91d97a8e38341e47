/**
 * The description of memory that travels with a userfaultfd to who is to page it in: JSON, an array
 * of regions, as Firecracker sends it to its page fault handler
 * (docs/snapshotting/handling-page-faults-on-snapshot-resume.md and `GuestRegionUffdMapping` in
 * src/vmm/src/persist.rs of Firecracker):
 *
 *     [{"base_host_virt_addr":140000000000000,"size":134217728,"offset":0,"page_size":4096}]
 *
 * What comes from a client is believed in nothing: it is bounded while it is read, and checked.
 *
 * @module
 */
import { ProtocolError, UsageError } from "../backend/errors.ts";
import { checkedLayout, type MemoryRegion } from "./layout.ts";

/** Bytes of the longest description: all regions that one userfaultfd may have, and room to spare. */
export const DESCRIPTION_BYTES_MAX = 256 << 10;

/** The description of regions, as {@linkcode parseDescription} reads it. */
export function formatDescription(regions: readonly MemoryRegion[]): string {
  return JSON.stringify(regions.map(({ address, size, offset, pageSize }) => ({
    base_host_virt_addr: address,
    size,
    offset,
    page_size: pageSize,
  })));
}

const OPEN = "[{".split("").map(codeOf), CLOSE = "]}".split("").map(codeOf);
const BLANKS = " \t\r\n".split("").map(codeOf);
const QUOTE = codeOf('"'), BACKSLASH = codeOf("\\"), BRACKET = codeOf("[");

function codeOf(character: string): number {
  return character.charCodeAt(0);
}

/**
 * Collects a description that arrives in pieces, with nothing that tells its length: it is complete
 * with the bracket that closes the array.
 */
export class DescriptionReader {
  readonly #pieces: Uint8Array[] = [];
  #length = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;
  #complete = false;

  /** Whether nothing came yet. */
  get empty(): boolean {
    return this.#length === 0;
  }

  /**
   * Takes bytes, of which it keeps a copy, and answers whether the description is complete.
   *
   * @throws {ProtocolError} they begin no array, go on behind its end, or are too many.
   */
  push(bytes: Uint8Array): boolean {
    if (this.#length + bytes.length > DESCRIPTION_BYTES_MAX) {
      throw new ProtocolError(
        `The description of the memory is longer than ${DESCRIPTION_BYTES_MAX} bytes`,
      );
    }
    for (const byte of bytes) this.#scan(byte);
    this.#pieces.push(bytes.slice());
    this.#length += bytes.length;
    return this.#complete;
  }

  /**
   * The text of what came.
   *
   * @throws {ProtocolError} it is not UTF-8.
   */
  text(): string {
    const all = new Uint8Array(this.#length);
    let at = 0;
    for (const piece of this.#pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(all);
    } catch (cause) {
      throw new ProtocolError("The description of the memory is not UTF-8", { cause });
    }
  }

  #scan(byte: number): void {
    if (this.#inString) {
      if (this.#escaped) this.#escaped = false;
      else if (byte === BACKSLASH) this.#escaped = true;
      else if (byte === QUOTE) this.#inString = false;
      return;
    }
    if (BLANKS.includes(byte)) return;
    if (this.#complete) {
      throw new ProtocolError("The description of the memory goes on behind its end");
    }
    if (this.#depth === 0 && byte !== BRACKET) {
      throw new ProtocolError("The description of the memory is not an array of regions");
    }
    if (byte === QUOTE) this.#inString = true;
    else if (OPEN.includes(byte)) this.#depth++;
    else if (CLOSE.includes(byte)) this.#complete = --this.#depth === 0;
  }
}

/** What a description is checked against. */
export interface DescriptionBounds {
  /** Bytes of the backend that the memory is to be paged in from. */
  backendSize: number;
  /** Bytes of a page of this kernel: no region has smaller ones. */
  pageSize: number;
}

/**
 * The regions that a description tells of, by ascending address.
 *
 * Without `page_size` the pages are the kernel's. Other fields are let be, among them
 * `page_size_kib`, which Firecracker still sends beside it, also in bytes.
 *
 * @throws {ProtocolError} it is not well-formed, or the regions cannot be: too many or none, not of
 * whole pages, overlapping, or more than the backend has.
 */
export function parseDescription(text: string, bounds: DescriptionBounds): MemoryRegion[] {
  let described: unknown;
  try {
    described = JSON.parse(text);
  } catch (cause) {
    throw new ProtocolError("The description of the memory is not JSON", { cause });
  }
  if (!Array.isArray(described)) {
    throw new ProtocolError("The description of the memory is not an array of regions");
  }
  const regions = laidOut(described.map((one) => readRegion(one, bounds)), bounds.backendSize);
  checkFit(regions, bounds.backendSize);
  return regions;
}

function readRegion(described: unknown, { pageSize }: DescriptionBounds): MemoryRegion {
  if (typeof described !== "object" || described === null || Array.isArray(described)) {
    throw new ProtocolError("A region of the description is not an object");
  }
  const fields = described as Readonly<Record<string, unknown>>;
  const region = {
    address: readNumber(fields, "base_host_virt_addr"),
    size: readNumber(fields, "size"),
    offset: readNumber(fields, "offset"),
    pageSize: "page_size" in fields ? readNumber(fields, "page_size") : pageSize,
  };
  if (region.pageSize < pageSize) {
    throw new ProtocolError(
      `A region of the description has pages of ${region.pageSize} bytes, ` +
        `the kernel's have ${pageSize}`,
    );
  }
  return region;
}

function readNumber(fields: Readonly<Record<string, unknown>>, name: string): number {
  const value = fields[name];
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  const found = value === undefined ? "nothing" : typeof value === "number" ? value : typeof value;
  throw new ProtocolError(`A region of the description has ${found} as its ${name}`, {
    hint: "expected a whole number below 2^53",
  });
}

function laidOut(regions: MemoryRegion[], backendSize: number): MemoryRegion[] {
  try {
    return checkedLayout(regions, backendSize);
  } catch (cause) {
    if (cause instanceof UsageError) throw new ProtocolError(cause.message, { cause });
    throw cause;
  }
}

/**
 * Each region ends with the backend, or within the page that the backend's end lies in; and all of
 * them together are no more than the backend, as what is remembered of each page takes memory.
 */
function checkFit(regions: readonly MemoryRegion[], backendSize: number): void {
  let total = 0, slack = 0;
  for (const { address, size, offset, pageSize } of regions) {
    if (offset + size - backendSize >= pageSize) {
      throw new ProtocolError(
        `The region of ${size} bytes at 0x${address.toString(16)} ends at offset ` +
          `${offset + size} of a backend of ${backendSize} bytes`,
      );
    }
    total += size;
    slack += pageSize;
  }
  if (total < backendSize + slack) return;
  throw new ProtocolError(
    `The regions are ${total} bytes altogether, more than a backend of ${backendSize}`,
  );
}
