/**
 * Memory that another thread touches or changes by libc, while the test answers its page faults.
 *
 * @module
 */
import { EPOLL, Epoll } from "../ffi/epoll.ts";
import { libc } from "../ffi/libc.ts";

const MREMAP_MAYMOVE_FIXED = 3;

const symbols = libc({
  // void *memset(void *s, int c, size_t n)
  memset: { parameters: ["usize", "i32", "usize"], result: "usize", nonblocking: true },
  // void *memcpy(void *dest, const void *src, size_t n)
  memcpy: { parameters: ["usize", "usize", "usize"], result: "usize", nonblocking: true },
  // int madvise(void *addr, size_t length, int advice)
  madvise: { parameters: ["usize", "usize", "i32"], result: "i32", nonblocking: true },
  // int munmap(void *addr, size_t length)
  munmap: { parameters: ["usize", "usize"], result: "i32", nonblocking: true },
  // void *mremap(void *old_address, size_t old_size, size_t new_size, int flags, void *new_address)
  mremap: {
    parameters: ["usize", "usize", "usize", "i32", "usize"],
    result: "usize",
    nonblocking: true,
  },
});

/** Writes a byte to every one of a range; resolves once all are written. */
export async function writeOnThread(address: number, length: number, byte: number): Promise<void> {
  await symbols().memset(BigInt(address), byte, BigInt(length));
}

/** Reads a range; resolves to its bytes once all are read. */
export async function readOnThread(address: number, length: number): Promise<Uint8Array> {
  // Over 64 bytes, so that it does not move.
  const bytes = new Uint8Array(Math.max(length, 128));
  const destination = Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes));
  await symbols().memcpy(destination, BigInt(address), BigInt(length));
  return bytes.subarray(0, length);
}

/** madvise(2); resolves to its result, errno is lost. */
export function adviseOnThread(address: number, length: number, advice: number): Promise<number> {
  return symbols().madvise(BigInt(address), BigInt(length), advice);
}

/** munmap(2); resolves to its result, errno is lost. */
export function unmapOnThread(address: number, length: number): Promise<number> {
  return symbols().munmap(BigInt(address), BigInt(length));
}

/** mremap(2) to a place of one's choice; resolves to where the range is then. */
export async function moveOnThread(from: number, length: number, to: number): Promise<number> {
  const bytes = BigInt(length);
  const flags = MREMAP_MAYMOVE_FIXED;
  return Number(await symbols().mremap(BigInt(from), bytes, bytes, flags, BigInt(to)));
}

/** Waits on this thread until a descriptor is readable. Throws where that takes five seconds. */
export function awaitReadable(fd: number): void {
  using epoll = new Epoll(1);
  epoll.add(fd, EPOLL.IN);
  if (epoll.wait(5000) !== 1) throw new Error(`Descriptor ${fd} is not readable after 5 seconds`);
}
