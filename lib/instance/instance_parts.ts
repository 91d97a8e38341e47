/**
 * The parts of a WebAssembly instance that move: its memory and the globals that it exports.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import type { GlobalValue } from "./instance_head.ts";

/** The memory of an instance: one that it exports. Throws {@linkcode UsageError} where there is none. */
export function exportedMemory({ exports }: WebAssembly.Instance): WebAssembly.Memory {
  const memories = Object.values(exports).filter((value) => value instanceof WebAssembly.Memory);
  if (memories.length === 1) return memories[0]!;
  throw new UsageError(`Cannot move an instance that exports ${memories.length} memories`, {
    hint: "name its memory by the option `memory`",
  });
}

/**
 * The values of all globals that an instance exports.
 *
 * @throws {UsageError} one of them is a reference or a vector, which mean nothing elsewhere or cannot
 * be told.
 */
export function readGlobals({ exports }: WebAssembly.Instance): Map<string, GlobalValue> {
  const values = new Map<string, GlobalValue>();
  for (const [name, global] of Object.entries(exports)) {
    if (!(global instanceof WebAssembly.Global)) continue;
    values.set(name, readGlobal(name, global));
  }
  return values;
}

function readGlobal(name: string, global: WebAssembly.Global): GlobalValue {
  let value: unknown;
  try {
    value = global.value;
  } catch {
    // A vector.
  }
  if (typeof value === "number" || typeof value === "bigint") return value;
  throw new UsageError(`Cannot move the global ${name}, which is no number`, {
    hint: "export none but i32, i64, f32 and f64",
  });
}

/**
 * Sets the globals of another instance of the same module.
 *
 * @throws {UsageError} as {@linkcode checkGlobals} does.
 */
export function writeGlobals(
  instance: WebAssembly.Instance,
  values: ReadonlyMap<string, GlobalValue>,
): void {
  for (const [name, value] of values) writeGlobal(name, globalOf(instance, name), value);
}

/**
 * Makes sure that an instance can take such values, and changes nothing in it.
 *
 * @throws {UsageError} it has no such global, or one of another type, or a constant of another value.
 */
export function checkGlobals(
  instance: WebAssembly.Instance,
  values: ReadonlyMap<string, GlobalValue>,
): void {
  for (const [name, value] of values) {
    const global = globalOf(instance, name);
    const before: unknown = global.value;
    writeGlobal(name, global, value);
    writeGlobal(name, global, before as GlobalValue);
  }
}

function globalOf({ exports }: WebAssembly.Instance, name: string): WebAssembly.Global {
  const global = exports[name];
  if (global instanceof WebAssembly.Global) return global;
  throw new UsageError(`Cannot set the global ${name}, which the instance does not export`, {
    hint: "make it of the same module as at the source",
  });
}

function writeGlobal(name: string, global: WebAssembly.Global, value: GlobalValue): void {
  if (Object.is(global.value, value)) return;
  try {
    global.value = value;
  } catch (cause) {
    throw new UsageError(`Cannot set the global ${name} to ${value}`, {
      hint: "make the instance of the same module, with the same imports, as at the source",
      cause,
    });
  }
}
