/** The backends of this host, each held to the contract in a few shapes. */
import { openLibc } from "../ffi/libc.ts";
import type { Awaitable, Extent, ZeroOptions } from "../lib/backend/backend.ts";
import { openDirectory } from "../lib/backend/directory.ts";
import { openFile } from "../lib/backend/file.ts";
import { type MemoryBackend, openMemory, openSharedMemory } from "../lib/backend/memory.ts";
import { Stage } from "../lib/chunk/stage.ts";
import { testBackend } from "./backend_conformance.ts";
import { requires } from "./requires.ts";

openLibc();

const MIB = 1 << 20;
const TIB = 2 ** 40;

testBackend("memory", { open: () => openMemory({ size: 5 * MIB + 1234 }) });
testBackend("1 TiB of memory", { open: () => openMemory({ size: TIB }) });

let owner: MemoryBackend;
testBackend("shared memory", {
  open: () => {
    owner = openMemory({ size: 3 * MIB });
    return openSharedMemory(owner.share());
  },
  reopen: () => openSharedMemory(owner.share()),
  openReadOnly: () => openSharedMemory({ ...owner.share(), readOnly: true }),
  remove: () => owner.close(),
});

let at = "";
const remove = () => Deno.removeSync(at, { recursive: true });

for (const [where, dir] of [["", undefined], [" on tmpfs", "/dev/shm"]] as const) {
  for (const [name, size] of [["a file", 5 * MIB + 1234], ["a 1 TiB file", TIB]] as const) {
    testBackend(name + where, {
      requires: requires(dir ?? "/tmp"),
      open: () => {
        at = Deno.makeTempDirSync(dir === undefined ? {} : { dir });
        return openFile({ path: `${at}/region`, size });
      },
      reopen: () => openFile({ path: `${at}/region` }),
      openReadOnly: () => openFile({ path: `${at}/region`, readOnly: true }),
      remove,
    });
  }
}

/** A file whose writes all go aside. */
class WrittenAside extends Stage {
  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    return this.backend.readAt(buffer, offset);
  }

  async writeAt(buffer: Uint8Array, offset: number): Promise<void> {
    await this.backend.writeAside!(buffer, offset);
  }

  protected zeroRange(offset: number, length: number, options?: ZeroOptions): Awaitable<void> {
    return this.backend.zero!(offset, length, options);
  }

  protected discardRange(offset: number, length: number): Awaitable<void> {
    return this.backend.discard!(offset, length);
  }

  protected findExtents(offset: number, length: number): Awaitable<Extent[]> {
    return this.backend.extents!(offset, length);
  }
}

testBackend("a file that is written aside", {
  open: () => {
    at = Deno.makeTempDirSync();
    return new WrittenAside(openFile({ path: `${at}/region`, size: 5 * MIB + 1234 }));
  },
  reopen: () => new WrittenAside(openFile({ path: `${at}/region` })),
  openReadOnly: () => new WrittenAside(openFile({ path: `${at}/region`, readOnly: true })),
  remove,
});

const directories = [
  { name: "a directory", size: 5 * MIB + 1234 },
  { name: "a 1 TiB directory", size: TIB },
  { name: "a directory with few open files", size: 3 * MIB, chunkSize: 16 << 10, maxOpen: 3 },
];
for (const { name, ...options } of directories) {
  testBackend(name, {
    open: () => {
      at = Deno.makeTempDirSync();
      return openDirectory({ path: `${at}/region`, ...options });
    },
    reopen: () => openDirectory({ path: `${at}/region` }),
    openReadOnly: () => openDirectory({ path: `${at}/region`, readOnly: true }),
    remove,
  });
}
