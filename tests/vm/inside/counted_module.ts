/**
 * A module that makes a backend whose calls the test counts: memory.
 *
 * @module
 */
import { openMemory } from "../../../lib/backend/memory.ts";
import type { Backend } from "../../../mod.ts";
import { CountedBackend } from "../../device/counted_backend.ts";

/** What is asked of it. */
export interface CountedModuleOptions {
  /** Bytes. */
  size: number;
  /** Shared with the test. */
  counters: Int32Array<SharedArrayBuffer>;
}

/** Makes the backend. */
export default function open(options: unknown): Backend {
  const { size, counters } = options as CountedModuleOptions;
  return new CountedBackend(openMemory({ size }), "at once", counters);
}
