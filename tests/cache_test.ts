/** The cache stage: the contract over several chunk sizes. */
import { openLibc } from "../ffi/libc.ts";
import type { Backend } from "../lib/backend/backend.ts";
import { openMemory } from "../lib/backend/memory.ts";
import { CacheStage, type Durability } from "../lib/chunk/cache.ts";
import { testBackend } from "./backend_conformance.ts";
import { BlockBackend } from "./block_backend.ts";

openLibc();

const KIB = 1 << 10, MIB = 1 << 20;

function cached(remote: Backend, local: Backend, chunkSize: number, durability?: Durability) {
  return new CacheStage({ remote, local, chunkSize, durability });
}

const shapes = [
  { name: "4 KiB chunks with an odd tail", size: 5 * MIB + 1234, chunkSize: 4 * KIB },
  { name: "64 KiB chunks", size: 6 * MIB, chunkSize: 64 * KIB },
  { name: "12 KiB chunks", size: 5 * MIB + 1, chunkSize: 12 * KIB },
  { name: "2 MiB chunks with an odd tail", size: 9 * MIB + 77, chunkSize: 2 * MIB },
  { name: "a chunk larger than the region", size: 300_001, chunkSize: 32 * MIB },
  { name: "1 TiB", size: 2 ** 40, chunkSize: 64 * KIB },
];
for (const { name, size, chunkSize } of shapes) {
  for (const durability of ["local", "remote"] as const) {
    testBackend(`a cache of memory in memory, ${name}, durable ${durability}`, {
      open: () => cached(openMemory({ size }), openMemory({ size }), chunkSize, durability),
    });
  }
}

const slow = [
  { name: "a slow remote", local: undefined, remote: 3 },
  { name: "a slow cache", local: 5, remote: undefined },
  { name: "both slow", local: 7, remote: 11 },
];
for (const { name, local, remote } of slow) {
  const size = 3 * MIB + 1000;
  const blocks = (seed: number | undefined, blockSize: number) =>
    new BlockBackend({ size, blockSize, ...(seed === undefined ? {} : { seed }) });
  for (const [chunkSize, remoteBlock, localBlock] of [[8 * KIB, 512, 512], [4 * KIB, 8192, 1000]]) {
    testBackend(`a cache, ${name}, chunks of ${chunkSize}, blocks of ${remoteBlock}`, {
      open: () => cached(blocks(remote, remoteBlock!), blocks(local, localBlock!), chunkSize!),
    });
    testBackend(`a cache, ${name}, pushed, chunks of ${chunkSize}, blocks of ${remoteBlock}`, {
      open: () =>
        cached(blocks(remote, remoteBlock!), blocks(local, localBlock!), chunkSize!, "remote"),
    });
  }
}
