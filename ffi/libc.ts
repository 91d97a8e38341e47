/**
 * Opens libc on first use: importing a module of `ffi/` needs no permission, calling it does.
 *
 * @module
 */

/** What this process runs on, as far as numbers of the kernel's interface depend on it. */
export type Arch = typeof Deno.build.arch;

/** Picks the constant of this machine's architecture. */
export function perArch<T>(values: { x86_64: T; aarch64: T }): T {
  return values[Deno.build.arch];
}

const openers: (() => unknown)[] = [];

/**
 * A symbol table of libc that is opened on the first call of the returned function, once an isolate.
 *
 * @throws {Error} where FFI is not permitted (`--allow-ffi`) or a symbol is missing.
 */
export function libc<const S extends Deno.ForeignLibraryInterface>(
  symbols: S,
): () => Deno.StaticForeignLibraryInterface<S> {
  let opened: Deno.StaticForeignLibraryInterface<S> | undefined;
  const open = () => opened ??= Deno.dlopen("libc.so.6", symbols).symbols;
  openers.push(open);
  return open;
}

/**
 * Opens every table of the modules imported so far. A test file calls it at its top: what opens
 * inside a test and stays open counts as a leak of that test.
 */
export function openLibc(): void {
  for (const open of openers) open();
}

/** A NUL-terminated UTF-8 string as C takes it. Throws `TypeError` when it holds a NUL itself. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) throw new TypeError("Cannot pass a string that holds NUL to C");
  return new TextEncoder().encode(text + "\0");
}

/**
 * The address of a buffer's first byte, as a number (user addresses fit in 2^53).
 * The buffer must live off the V8 heap (over 64 bytes, or made by mmap) and be kept referenced for
 * as long as C uses the address.
 */
export function addressOf(buffer: Uint8Array): number {
  return Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer as BufferSource)));
}
