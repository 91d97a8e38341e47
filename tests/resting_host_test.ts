/**
 * Servers whose backend rests between calls, so that they wait in the kernel: what does not answer at
 * once must be over all the same.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { close, fsyncAsync, O, open } from "../ffi/file.ts";
import { libc, openLibc } from "../ffi/libc.ts";
import { openLocal } from "../lib/backend/open_local.ts";
import { connectTelemap } from "../lib/rpc/client.ts";
import { Pattern } from "../mod.ts";
import { TelemapProcess } from "./telemap_process.ts";

const symbols = libc({
  // int posix_fadvise(int fd, off_t offset, off_t len, int advice)
  posix_fadvise: { parameters: ["i32", "i64", "i64", "i32"], result: "i32" },
});

openLibc();

const MIB = 1 << 20;
const SIZE = 8 * MIB;
const PIECE = 256 << 10;
const ROUNDS = 5;
/** So long a server may say nothing that was asked for something, in ms. */
const SILENCE_MS = 5000;

const STORES: Record<string, (directory: string) => string> = {
  "a file": (directory) => `file:${directory}/region?size=${SIZE}`,
  "a directory": (directory) => `dir:${directory}/region?size=${SIZE}&chunk=1MiB`,
};

for (const [name, store] of Object.entries(STORES)) {
  Deno.test(`a server of ${name} finishes reads of the disk and syncs, and rests then`, async () => {
    const directory = await Deno.makeTempDir({ prefix: "telemap-test-" });
    try {
      const url = store(directory);
      {
        await using backend = openLocal(url)!;
        assert(backend.restsBetweenCalls);
      }
      // In a process of its own, which can be killed where it waits for ever.
      await using server = new TelemapProcess([
        ...["serve", url, "--listen", "telemap://127.0.0.1:0", "--json"],
      ]);
      const address = `${(await server.next())["url"]}`;
      const options = { onLoss: "error", requestTimeout: SILENCE_MS } as const;
      await using region = await connectTelemap(address, options);
      for (let round = 0; round < ROUNDS; round++) {
        const pattern = new Pattern(round), content = new Uint8Array(SIZE);
        pattern.fill(content, 0);
        await region.writeAt(content, 0);
        await region.flush();
        await dropCache(directory);
        const pieces = Array.from({ length: SIZE / PIECE }, () => new Uint8Array(PIECE));
        await Promise.all([
          ...pieces.map((piece, index) => region.readAt(piece, index * PIECE)),
          region.flush(),
          region.flush(),
        ]);
        pieces.forEach((piece, index) =>
          assertEquals(pattern.findDifference(piece, index * PIECE), -1)
        );
      }
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  });
}

/** Has the page cache let go of every file below a directory. */
async function dropCache(directory: string): Promise<void> {
  const POSIX_FADV_DONTNEED = 4;
  for (const { name, isDirectory, isFile } of Deno.readDirSync(directory)) {
    const path = `${directory}/${name}`;
    if (isDirectory) await dropCache(path);
    if (!isFile) continue;
    const fd = open(path, O.RDONLY);
    assert(await fsyncAsync(fd));
    assertEquals(symbols().posix_fadvise(fd, 0n, 0n, POSIX_FADV_DONTNEED), 0);
    close(fd);
  }
}
