/**
 * string.h: memory compared and copied by address, without a view of it.
 *
 * @module
 */
import { libc } from "./libc.ts";

const symbols = libc({
  // int memcmp(const void *s1, const void *s2, size_t n)
  memcmp: { parameters: ["usize", "usize", "usize"], result: "i32" },
  // void *memcpy(void *dest, const void *src, size_t n)
  memcpy: { parameters: ["usize", "usize", "usize"], result: "usize" },
  copyOut: { name: "memcpy", parameters: ["buffer", "usize", "usize"], result: "void" },
});

/** Whether `length` bytes at two addresses are the same. Both must be mapped and readable. */
export function equalMemory(one: number, other: number, length: number): boolean {
  return symbols().memcmp(BigInt(one), BigInt(other), BigInt(length)) === 0;
}

/** Copies bytes from one address to another. The two runs must not overlap. */
export function copyMemory(destination: number, source: number, length: number): void {
  symbols().memcpy(BigInt(destination), BigInt(source), BigInt(length));
}

/** Fills all of a buffer with what lies at an address. */
export function copyOut(buffer: Uint8Array, source: number): void {
  symbols().copyOut(buffer, BigInt(source), BigInt(buffer.length));
}
