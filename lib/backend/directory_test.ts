import { assert, assertEquals, assertThrows } from "@std/assert";
import { SystemError } from "../../ffi/errno.ts";
import { openLibc } from "../../ffi/libc.ts";
import { requires, withReason } from "../../tests/requires.ts";
import { openDirectory, type OpenDirectoryOptions } from "./directory.ts";
import { IntegrityError, UsageError } from "./errors.ts";

openLibc();

const KIB = 1024;

/** Runs a test with the path of a store that is not there yet. */
async function withPath(run: (path: string) => Promise<void> | void): Promise<void> {
  const dir = Deno.makeTempDirSync();
  try {
    await run(`${dir}/store`);
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
}

/** Paths and sizes of the chunk files of a store. */
function chunkFiles(path: string): Record<string, number> {
  const files: Record<string, number> = {};
  for (const group of Deno.readDirSync(path)) {
    if (!group.isDirectory) continue;
    for (const { name } of Deno.readDirSync(`${path}/${group.name}`)) {
      files[`${group.name}/${name}`] = Deno.statSync(`${path}/${group.name}/${name}`).size;
    }
  }
  return files;
}

/**
 * Chunk files of a store that this process holds open, told apart by inode: node:fs duplicates the
 * descriptor for the time of a call that runs off this thread, and a file that such a call removes
 * amid the listing has one name in it before and another (`… (deleted)`) after.
 */
function openCount(path: string): number {
  const files = new Set<number | null>();
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    const descriptor = `/proc/self/fd/${name}`;
    try {
      if (!Deno.readLinkSync(descriptor).startsWith(`${path}/0/`)) continue;
      files.add(Deno.statSync(descriptor).ino);
    } catch (error) {
      // The descriptor of this very listing is closed by now.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return files.size;
}

Deno.test("a chunk is a file, which writing makes and reading does not", () =>
  withPath(async (path) => {
    const size = 20 * KIB * 4096 + 100;
    await using store = openDirectory({ path, size, chunkSize: 16 * KIB });
    const buffer = new Uint8Array(100 * KIB);
    await store.readAt(buffer, 0);
    await store.zero!(0, 40 * KIB);
    await store.flush();
    assertEquals(chunkFiles(path), {});
    await store.writeAt(new Uint8Array([1, 2]), 16 * KIB - 1);
    await store.writeAt(new Uint8Array([3]), 4096 * 16 * KIB);
    await store.writeAt(new Uint8Array([4]), size - 1);
    assertEquals(chunkFiles(path), {
      "0/0000": 16 * KIB,
      "0/0001": 16 * KIB,
      "1/1000": 16 * KIB,
      "1/1400": 100,
    });
    const data = { hole: false, zero: false };
    assertEquals(store.extents!(0, 40 * KIB), [
      { offset: 0, length: 32 * KIB, ...data },
      { offset: 32 * KIB, length: 8 * KIB, hole: true, zero: true },
    ]);
    await store.zero!(0, 17 * KIB);
    assertEquals(Object.keys(chunkFiles(path)), ["0/0001", "1/1000", "1/1400"].toSorted());
    await store.discard!(0, size);
    assertEquals(chunkFiles(path), {});
  }));

Deno.test("size and chunk size are recorded, and held to", () =>
  withPath(async (path) => {
    assertThrows(() => openDirectory({ path }), SystemError, "give a size");
    const made = openDirectory({ path, size: 1024 * KIB, chunkSize: 64 * KIB });
    await made.close();
    assertEquals(JSON.parse(Deno.readTextFileSync(`${path}/telemap.json`)), {
      format: "telemap-directory",
      version: 1,
      size: 1024 * KIB,
      chunkSize: 64 * KIB,
    });
    const again = openDirectory({ path });
    assertEquals(again.size, 1024 * KIB);
    await again.close();
    for (const other of [{ size: 1 }, { chunkSize: 4096 }]) {
      const opening = () => openDirectory({ path, ...other });
      assertThrows(opening, UsageError, "it has size 1MiB and chunk 64KiB");
    }
    const same = openDirectory({ path, size: 1024 * KIB, chunkSize: 64 * KIB });
    await same.close();
  }));

Deno.test("sizes that make no sense are refused", () =>
  withPath((path) => {
    const wrong: Omit<OpenDirectoryOptions, "path">[] = [
      { size: 0 },
      { size: 1.5 },
      { size: 2 ** 53 },
      { size: 4096, chunkSize: 0 },
      { size: 4096, chunkSize: 2048 },
      { size: 4096, chunkSize: 4097 },
      { size: 4096, chunkSize: 2 ** 31 },
      { size: 2 ** 41, chunkSize: 4096 },
      { size: 4096, maxOpen: 0 },
    ];
    for (const options of wrong) {
      assertThrows(() => openDirectory({ path, ...options }), UsageError);
    }
  }));

Deno.test("a directory of something else, or a damaged one, is left alone", () =>
  withPath(async (path) => {
    Deno.mkdirSync(path);
    Deno.writeTextFileSync(`${path}/diary`, "");
    assertThrows(() => openDirectory({ path, size: 4096 }), UsageError, "holds diary");
    assertEquals([...Deno.readDirSync(path)].length, 1);
    assertThrows(() => openDirectory({ path: `${path}/diary`, size: 1 }), UsageError, "by file:");
    Deno.removeSync(`${path}/diary`);
    await openDirectory({ path, size: 4096 }).close();
    const manifest = { format: "telemap-directory", version: 1, size: 4096, chunkSize: 4096 };
    const damaged = [{}, 1, null, { ...manifest, format: "x" }, { ...manifest, chunkSize: 5 }];
    for (const content of [...damaged, { ...manifest, size: "4096" }]) {
      Deno.writeTextFileSync(`${path}/telemap.json`, JSON.stringify(content));
      assertThrows(() => openDirectory({ path }), IntegrityError, "telemap.json");
    }
    Deno.writeTextFileSync(`${path}/telemap.json`, "{");
    assertThrows(() => openDirectory({ path }), IntegrityError, "no JSON");
    Deno.writeTextFileSync(`${path}/telemap.json`, JSON.stringify({ ...manifest, version: 2 }));
    assertThrows(() => openDirectory({ path }), UsageError, "version 2");
  }));

Deno.test("making a store that was interrupted is taken up again", () =>
  withPath(async (path) => {
    Deno.mkdirSync(path);
    Deno.writeTextFileSync(`${path}/telemap.lock`, "");
    Deno.writeTextFileSync(`${path}/telemap.json.new`, '{"form');
    await using store = openDirectory({ path, size: 4096 });
    assertEquals(store.size, 4096);
  }));

const needsFlock = requires("flock");
Deno.test({
  name: withReason("one writer, or several readers, have a store open", needsFlock),
  ignore: needsFlock.ignore,
  fn: () =>
    withPath(async (path) => {
      const elsewhere = (mode: string) =>
        new Deno.Command("flock", { args: ["-n", mode, `${path}/telemap.lock`, "true"] })
          .outputSync().success;
      const writer = openDirectory({ path, size: 4096 });
      for (const readOnly of [false, true]) {
        const error = assertThrows(() => openDirectory({ path, readOnly }), SystemError);
        assertEquals([error.syscall, error.code], ["lock", "EAGAIN"]);
        assert(error.message.includes("in use"), error.message);
      }
      assertEquals([elsewhere("-x"), elsewhere("-s")], [false, false]);
      await writer.close();
      await using _reader = openDirectory({ path, readOnly: true });
      await using _other = openDirectory({ path, readOnly: true });
      assertThrows(() => openDirectory({ path }), SystemError, "in use");
      assertEquals([elsewhere("-x"), elsewhere("-s")], [false, true]);
    }),
});

Deno.test("no more files are open than told, whatever goes on at once", () =>
  withPath(async (path) => {
    const maxOpen = 5;
    await using store = openDirectory({ path, size: 400 * KIB, chunkSize: 4 * KIB, maxOpen });
    let most = 0;
    const look = () => most = Math.max(most, openCount(path));
    await Promise.all(Array.from({ length: 100 }, async (_, chunk) => {
      await store.writeAt(new Uint8Array(4 * KIB).fill(chunk), chunk * 4 * KIB);
      look();
      if (chunk % 10 === 0) await store.flush();
      if (chunk % 4 === 0) await store.zero!(chunk * 4 * KIB, 4 * KIB);
      look();
      const buffer = new Uint8Array(4 * KIB);
      await store.readAt(buffer, chunk * 4 * KIB);
      assertEquals(buffer, new Uint8Array(4 * KIB).fill(chunk % 4 === 0 ? 0 : chunk));
      look();
    }));
    const whole = new Uint8Array(400 * KIB);
    await store.readAt(whole, 0);
    look();
    assertEquals(most, maxOpen);
    assertEquals(whole.filter((byte, index) => index % (4 * KIB) === 0 && byte > 0).length, 75);
  }));

Deno.test("a file that is removed while it is synced counts until it is closed", () =>
  withPath(async (path) => {
    await using store = openDirectory({ path, size: 8 * KIB, chunkSize: 4 * KIB, maxOpen: 1 });
    await store.writeAt(new Uint8Array(4 * KIB), 0);
    const flushed = store.flush();
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
    const removed = store.discard!(0, 4 * KIB);
    const written = store.writeAt(new Uint8Array(4 * KIB), 4 * KIB);
    assertEquals(openCount(path), 1);
    await Promise.all([flushed, removed, written]);
    assertEquals(chunkFiles(path), { "0/1": 4 * KIB });
  }));

Deno.test("closing waits for what takes several steps", () =>
  withPath(async (path) => {
    const store = openDirectory({ path, size: 400 * KIB, chunkSize: 4 * KIB });
    await store.writeAt(new Uint8Array(400 * KIB), 0);
    let done = false;
    const discarded = (async () => {
      await store.discard!(0, store.size);
      done = true;
    })();
    await store.close();
    assertEquals([done, chunkFiles(path)], [true, {}]);
    await discarded;
  }));

Deno.test("a chunk file that ends early reads as zeroes from there", () =>
  withPath(async (path) => {
    const made = openDirectory({ path, size: 32 * KIB, chunkSize: 16 * KIB });
    await made.writeAt(new Uint8Array(32 * KIB).fill(9), 0);
    await made.close();
    Deno.truncateSync(`${path}/0/0`, 1000);
    await using store = openDirectory({ path });
    const found = new Uint8Array(32 * KIB).fill(5);
    await store.readAt(found, 0);
    const expected = new Uint8Array(32 * KIB).fill(9).fill(0, 1000, 16 * KIB);
    assertEquals(found, expected);
  }));

Deno.test("files with other names in a group are not taken for chunks", () =>
  withPath(async (path) => {
    await openDirectory({ path, size: 64 * KIB, chunkSize: 4 * KIB }).close();
    Deno.mkdirSync(`${path}/0`);
    for (const name of ["00", "F", "1x", "10", "-1", "lost+found"]) {
      Deno.writeTextFileSync(`${path}/0/${name}`, "x");
    }
    await using store = openDirectory({ path });
    const hole = { offset: 0, length: 64 * KIB, hole: true, zero: true };
    assertEquals(store.extents!(0, 64 * KIB), [hole]);
  }));
