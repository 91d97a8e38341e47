/** The backends of this host on disks that are full, broken, read-only or somebody else's. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { SystemError } from "../../ffi/errno.ts";
import { openLibc } from "../../ffi/libc.ts";
import type { Backend } from "../../lib/backend/backend.ts";
import { openDirectory } from "../../lib/backend/directory.ts";
import { IntegrityError } from "../../lib/backend/errors.ts";
import { openFile } from "../../lib/backend/file.ts";
import { assertBytes, pattern, readBack } from "../backend_model.ts";
import { requires, requiresAll, requiresThat, withReason } from "../requires.ts";

openLibc();

const MIB = 1 << 20;

function run(command: string, ...args: string[]): string {
  const { success, stdout, stderr } = new Deno.Command(command, { args }).outputSync();
  if (!success) throw new Error(`${command}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout).trim();
}

/** What to take down at the end of a test, the last thing first. */
class Fixtures implements Disposable {
  readonly #undo: (() => void)[] = [];

  /** A directory on a tmpfs of so many bytes. */
  tmpfs(size: number): string {
    const path = Deno.makeTempDirSync();
    this.#undo.push(() => Deno.removeSync(path));
    this.#mount(path, "-t", "tmpfs", "-o", `size=${size}`, "tmpfs", path);
    return path;
  }

  /** A loop device of 64 MiB over a disk that has only `room` bytes. */
  brokenDisk(room: number): string {
    const image = `${this.tmpfs(room)}/image`;
    Deno.createSync(image).close();
    Deno.truncateSync(image, 64 * MIB);
    const device = run("losetup", "--find", "--show", image);
    this.#undo.push(() => run("losetup", "--detach", device));
    return device;
  }

  /** A directory on an ext2 file system on a {@linkcode brokenDisk}. */
  brokenFileSystem(room: number): string {
    const device = this.brokenDisk(room);
    run("mkfs.ext2", "-q", "-b", "4096", "-N", "64", "-E", "nodiscard", device);
    const path = Deno.makeTempDirSync();
    this.#undo.push(() => Deno.removeSync(path));
    this.#mount(path, "-t", "ext2", "-o", "errors=continue", device, path);
    return path;
  }

  /** Makes what is mounted at a path read-only. */
  makeReadOnly(path: string): void {
    run("mount", "-o", "remount,ro", path);
  }

  [Symbol.dispose](): void {
    for (const undo of this.#undo.reverse()) undo();
  }

  #mount(path: string, ...args: string[]): void {
    run("mount", ...args);
    this.#undo.push(() => run("umount", path));
  }
}

function canMount(): boolean {
  try {
    using fixtures = new Fixtures();
    fixtures.tmpfs(MIB);
    return true;
  } catch {
    return false;
  }
}

const mounts = requiresAll(
  requires("root", "mount"),
  requiresThat(canMount(), "mounting is not permitted"),
);
const loops = requiresAll(mounts, requires("/dev/loop-control", "losetup", "mkfs.ext2"));

function faultTest(name: string, needs: typeof mounts, fn: (f: Fixtures) => Promise<void>): void {
  Deno.test({
    name: withReason(name, needs),
    ignore: needs.ignore,
    fn: async () => {
      using fixtures = new Fixtures();
      await fn(fixtures);
    },
  });
}

const STORES: Record<string, (dir: string) => Backend> = {
  "a file": (dir) => openFile({ path: `${dir}/f`, size: 64 * MIB }),
  "a directory": (dir) => openDirectory({ path: `${dir}/d`, size: 64 * MIB, maxOpen: 4 }),
};

for (const [name, open] of Object.entries(STORES)) {
  faultTest(`${name} on a full disk says so and keeps what it had`, mounts, async (fixtures) => {
    await using backend = open(fixtures.tmpfs(4 * MIB));
    await backend.writeAt(pattern(MIB, 1), 0);
    const filling = async () => {
      for (let offset = MIB; offset < 16 * MIB; offset += MIB) {
        await backend.writeAt(pattern(MIB, 2), offset);
      }
    };
    const error = await assertRejects(filling, SystemError);
    assertEquals([error.syscall, error.code], ["write", "ENOSPC"]);
    const large = async () => await backend.writeAt(pattern(8 * MIB, 3), 20 * MIB);
    assertEquals((await assertRejects(large, SystemError)).code, "ENOSPC");
    assertBytes(await readBack(backend, 0, MIB), pattern(MIB, 1), "What was written before");
    await backend.discard!(MIB, 63 * MIB);
    await backend.writeAt(pattern(MIB, 4), 40 * MIB);
    assertBytes(await readBack(backend, 40 * MIB, MIB), pattern(MIB, 4), "What found room again");
  });

  faultTest(`${name} whose disk lost a write never vouches for it again`, loops, async (f) => {
    await using backend = open(f.brokenFileSystem(2 * MIB));
    await backend.flush();
    const lose = async () => {
      for (let offset = 0; offset < 16 * MIB; offset += MIB) {
        await backend.writeAt(pattern(MIB, 5), offset);
      }
      // Reading makes a directory close files that were written to.
      for (let offset = 0; offset < 4 * MIB; offset += MIB) await readBack(backend, offset, 1);
      await backend.flush();
    };
    const first = await assertRejects(lose, SystemError);
    assert(["EIO", "ENOSPC"].includes(first.code), first.message);
    const flushes = [1, 2].map(() => assertRejects(async () => await backend.flush(), SystemError));
    for (const error of await Promise.all(flushes)) assertEquals(error.message, first.message);
  });

  faultTest(`${name} on a file system that is read-only is refused`, mounts, async (fixtures) => {
    const dir = fixtures.tmpfs(MIB);
    await open(dir).close();
    fixtures.makeReadOnly(dir);
    const error = assertThrows(() => open(dir), SystemError, "mounted read-only");
    assertEquals([error.syscall, error.code], ["open", "EROFS"]);
  });
}

faultTest("a directory vouches for what was written before it was opened", loops, async (f) => {
  const path = `${f.brokenFileSystem(2 * MIB)}/d`;
  {
    await using killed = openDirectory({ path, size: 64 * MIB });
    for (let offset = 0; offset < 16 * MIB; offset += MIB) {
      await killed.writeAt(pattern(MIB, 8), offset);
    }
  }
  await using again = openDirectory({ path });
  const flush = () => again.flush() as Promise<void>;
  await assertRejects(flush, IntegrityError, "Cannot sync the file system");
});

faultTest("a block device is a region of its size", loops, async (fixtures) => {
  const path = fixtures.brokenDisk(128 * MIB);
  await using device = openFile({ path });
  assertEquals([device.size, device.durable], [64 * MIB, true]);
  assertThrows(() => openFile({ path, size: MIB }), Error, "as it has 67108864");
  await device.writeAt(pattern(10_001, 6), 64 * MIB - 10_001);
  await device.flush();
  await using again = openFile({ path, readOnly: true });
  const found = await readBack(again, 64 * MIB - 10_001, 10_001);
  assertBytes(found, pattern(10_001, 6), "The end of the device");
  assertEquals((await device.extents!(0, 64 * MIB)).length, 1);
});

faultTest("a block device that lost a write says so", loops, async (fixtures) => {
  await using device = openFile({ path: fixtures.brokenDisk(2 * MIB) });
  for (let offset = 0; offset < 16 * MIB; offset += MIB) {
    await device.writeAt(pattern(MIB, 7), offset);
  }
  const error = await assertRejects(async () => await device.flush(), SystemError);
  assert(["EIO", "ENOSPC"].includes(error.code), error.message);
});

faultTest("what belongs to somebody else is refused with what to do", mounts, (fixtures) => {
  const dir = fixtures.tmpfs(MIB);
  Deno.chmodSync(dir, 0o700);
  Deno.writeFileSync(`${dir}/f`, new Uint8Array(10));
  // setfsuid concerns this thread alone, and takes it root's say over files.
  const lib = Deno.dlopen("libc.so.6", {
    setfsuid: { parameters: ["u32"], result: "i32" }, // int setfsuid(uid_t fsuid)
  });
  const NOBODY = 65534;
  try {
    lib.symbols.setfsuid(NOBODY);
    for (const path of [`${dir}/f`, `${dir}/g`]) {
      const opening = () => openFile({ path, size: 10 });
      const error = assertThrows(opening, SystemError, "check the owner and mode");
      assertEquals(error.code, "EACCES");
    }
    const opening = () => openDirectory({ path: `${dir}/d`, size: 10 });
    assertEquals(assertThrows(opening, SystemError).code, "EACCES");
  } finally {
    lib.symbols.setfsuid(0);
    lib.close();
  }
  return Promise.resolve();
});
