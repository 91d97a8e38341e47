/**
 * A module that makes a backend, as users name one to mount it as a slice: memory that begins with
 * a text.
 *
 * @module
 */
import { openMemory } from "../../lib/backend/memory.ts";
import type { Backend } from "../../mod.ts";

/** What is asked of it. */
export interface MemoryModuleOptions {
  /** Bytes. */
  size: number;
  /** What it begins with. */
  text: string;
}

/** Makes the backend. */
export default async function open(options: unknown): Promise<Backend> {
  const { size, text } = options as MemoryModuleOptions;
  const backend = openMemory({ size });
  await backend.writeAt(new TextEncoder().encode(text), 0);
  return backend;
}
