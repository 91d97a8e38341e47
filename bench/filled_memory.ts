/**
 * A region in memory in which no page is zeroes, as a module that the Worker of a mount imports.
 *
 * @module
 */
import { Mapping } from "../ffi/mman.ts";
import { openMemory } from "../lib/backend/memory.ts";
import { type Backend, type BackendModule, Pattern } from "../mod.ts";

const PIECE = 1 << 20;

/** Makes the backend, of so many bytes. */
export default async function open(size: unknown): Promise<Backend> {
  const backend = openMemory({ size: size as number });
  const pattern = new Pattern(), piece = new Uint8Array(PIECE);
  for (let offset = 0; offset < backend.size; offset += PIECE) {
    pattern.fill(piece, offset);
    await backend.writeAt(piece, offset);
  }
  return backend;
}

/** Names the backend. */
export function filledMemory(size: number): BackendModule {
  return { module: import.meta.url, options: size };
}

/** The same bytes as plain memory. */
export function filledMapping(size: number): Mapping {
  const mapping = Mapping.map({ length: size });
  new Pattern().fill(mapping.bytes, 0);
  return mapping;
}

/** Writes the same bytes to a file. */
export async function writeFilledFile(path: string, size: number): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true });
  const pattern = new Pattern(), piece = new Uint8Array(PIECE);
  for (let offset = 0; offset < size; offset += PIECE) {
    pattern.fill(piece, offset);
    await file.write(piece);
  }
}
