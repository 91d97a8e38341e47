import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { ERRNO, errno } from "../../ffi/errno.ts";
import { close, FALLOC, fallocate, lseek, O, open, pread, pwrite, SEEK } from "../../ffi/file.ts";
import { openLibc } from "../../ffi/libc.ts";
import { MAP, Mapping, PROT } from "../../ffi/mman.ts";
import { UsageError } from "../../lib/backend/errors.ts";
import { probeFuse } from "../../lib/device/fuse.ts";
import { requires, requiresAll, requiresThat, withReason } from "../requires.ts";
import { shell, temporaryDirectory, tryShell } from "./command.ts";
import { COUNT, type Manner } from "./counted_backend.ts";
import { serveFile } from "./served_file.ts";

openLibc();

const MIB = 1 << 20;
const probe = probeFuse();
const needs = requiresAll(requires("root"), requiresThat(probe.available, probe.reason));

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name: withReason(`fuse: ${name}`, needs), ignore: needs.ignore, fn });
}

/** xorshift32: values in `[0, limit)` that follow from the seed. */
function makeRandom(seed: number): (limit: number) => number {
  let state = seed | 1;
  return (limit) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
}

function newSeed(): number {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  console.log(`seed ${seed}`);
  return seed;
}

/** Reads and writes at random places and compares with a model in memory. */
function exercise(path: string, model: Uint8Array<ArrayBuffer>, steps: number): void {
  const random = makeRandom(newSeed());
  const fd = open(path, O.RDWR);
  for (let step = 0; step < steps; step++) {
    const offset = random(model.length);
    const length = Math.min(random(step % 8 === 0 ? 3 * MIB : 20_000) + 1, model.length - offset);
    if (random(2) === 0) {
      const bytes = new Uint8Array(length).fill(random(256));
      bytes[0] = step;
      model.set(bytes, offset);
      assertEquals(pwrite(fd, bytes, offset), length);
    } else {
      const bytes = new Uint8Array(length);
      assertEquals(pread(fd, bytes, offset), length);
      assertSame(bytes, model.subarray(offset, offset + length));
    }
  }
  close(fd);
}

function assertSame(actual: Uint8Array, expected: Uint8Array): void {
  assertEquals(actual.length, expected.length);
  const differs = actual.findIndex((byte, index) => byte !== expected[index]);
  assertEquals(differs, -1, `byte ${differs} differs`);
}

for (const manner of ["at once", "out of order"] satisfies Manner[]) {
  test(`reads and writes answered ${manner} equal a model`, async () => {
    const size = 5 * MIB + 123;
    await using served = await serveFile({ size, manner });
    const model = new Uint8Array(size);
    exercise(served.device.path, model, 300);
    assertSame(await Deno.readFile(served.device.path), model);
  });
}

test("reads straight from memory equal a model", async () => {
  const size = 5 * MIB + 123;
  await using served = await serveFile({ size, bare: true });
  const model = new Uint8Array(size);
  exercise(served.device.path, model, 300);
  await shell(`dd if=${served.device.path} of=/dev/null bs=1M iflag=direct`);
  assertSame(await Deno.readFile(served.device.path), model);
});

test("what is written through a file backend is in its file", async () => {
  using directory = temporaryDirectory();
  const path = `${directory.path}/store`;
  const size = 3 * MIB + 5;
  const model = new Uint8Array(size);
  {
    await using served = await serveFile({ size, path, bare: true });
    exercise(served.device.path, model, 200);
    await served.device.detach();
  }
  assertSame(await Deno.readFile(path), model);
});

test("requests overlap in the backend and find their answers", async () => {
  const size = 16 * MIB;
  await using served = await serveFile({ size, manner: "out of order" });
  const { path } = served.device;
  await shell(`dd if=/dev/urandom of=${path} bs=1M count=16 conv=notrunc 2>&1`);
  const expected = await shell(`sha256sum < ${path}`);
  const readers = Array.from(
    { length: 8 },
    () => shell(`dd if=${path} bs=64k iflag=direct | sha256sum`),
  );
  for (const sum of await Promise.all(readers)) assertEquals(sum, expected);
  const overlap = served.server.counters[COUNT.OVERLAP]!;
  assert(overlap > 2, `only ${overlap} requests at a time`);
});

test("fsync reaches the backend's flush, close does not", async () => {
  await using served = await serveFile({ size: MIB });
  const { counters } = served.server;
  using file = await Deno.open(served.device.path, { write: true });
  await file.write(new Uint8Array(10));
  assertEquals(counters[COUNT.FLUSH], 0);
  await file.sync();
  assertEquals(counters[COUNT.FLUSH], 1);
  await file.syncData();
  assertEquals(counters[COUNT.FLUSH], 2);
  await served.device.detach();
  assertEquals(counters[COUNT.FLUSH], 3);
});

test("a shared mapping is read and written, a private one only read", async () => {
  const size = 8 * MIB;
  await using served = await serveFile({ size });
  const { path } = served.device;
  const fd = open(path, O.RDWR);
  using shared = Mapping.map({ length: size, flags: MAP.SHARED, fd });
  using copy = Mapping.map({ length: size, flags: MAP.PRIVATE, fd });
  close(fd);
  shared.bytes.fill(7, MIB, 2 * MIB);
  copy.bytes.fill(9, 3 * MIB, 3 * MIB + 10);
  assertEquals(copy.bytes[MIB + 5], 7);
  await shared.syncAsync();
  const model = new Uint8Array(size).fill(7, MIB, 2 * MIB);
  assertSame(await Deno.readFile(path), model);
  assertEquals(copy.bytes[3 * MIB], 9);
  assert(served.server.counters[COUNT.WRITE]! > 0);
  assertEquals(served.server.counters[COUNT.FLUSH], 1);
});

test("dirty pages of a mapping are in the store after detach", async () => {
  using directory = temporaryDirectory();
  const store = `${directory.path}/store`;
  const size = 2 * MIB;
  await using served = await serveFile({ size, path: store });
  const fd = open(served.device.path, O.RDWR);
  const mapping = Mapping.map({ length: size, flags: MAP.SHARED, fd });
  close(fd);
  mapping.bytes.fill(3);
  // The mapping keeps the file system busy, so that it is taken away by force, after a flush.
  await served.device.detach();
  mapping.unmap();
  assertSame(await Deno.readFile(store), new Uint8Array(size).fill(3));
});

test("holes are found where nobody writes", async () => {
  const size = 200 * MIB;
  await using served = await serveFile({ size });
  const { path } = served.device;
  const writer = open(path, O.RDWR);
  pwrite(writer, new Uint8Array(4096).fill(1), 100 * MIB);
  // Dirty pages would not be seen, so with a writer all is data.
  assertEquals(lseek(writer, 5, SEEK.DATA), 5);
  assertEquals(lseek(writer, 5, SEEK.HOLE), size);
  close(writer);
  const fd = open(path, O.RDONLY);
  assertEquals(lseek(fd, 0, SEEK.HOLE), 0);
  assertEquals(lseek(fd, 0, SEEK.DATA), 100 * MIB);
  const end = lseek(fd, 100 * MIB, SEEK.HOLE);
  assert(end >= 100 * MIB + 4096 && end <= 101 * MIB, `the hole begins at ${end}`);
  assertEquals(lseek(fd, end, SEEK.DATA), -1);
  assertEquals(errno(), ERRNO.ENXIO);
  assertEquals(lseek(fd, size, SEEK.DATA), -1);
  close(fd);
});

test("fallocate punches and zeroes, and refuses to grow", async () => {
  const size = 4 * MIB;
  await using served = await serveFile({ size });
  const { path } = served.device;
  const fd = open(path, O.RDWR);
  const model = new Uint8Array(size).fill(5);
  assertEquals(pwrite(fd, model, 0), size);
  const punch = FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE;
  assertEquals(fallocate(fd, punch, 100_001, MIB), 0);
  assertEquals(fallocate(fd, FALLOC.ZERO_RANGE, 2 * MIB, 10), 0);
  assertEquals(fallocate(fd, punch, size - 10, 100), 0);
  model.fill(0, 100_001, 100_001 + MIB).fill(0, 2 * MIB, 2 * MIB + 10).fill(0, size - 10);
  assertEquals(fallocate(fd, 0, 0, size), 0);
  assertEquals(fallocate(fd, 0, 1, size), -1);
  assertEquals(errno(), ERRNO.ENOSPC);
  const COLLAPSE_RANGE = 8;
  assertEquals(fallocate(fd, COLLAPSE_RANGE, 0, 4096), -1);
  assertEquals(errno(), ERRNO.EOPNOTSUPP);
  close(fd);
  assertSame(await Deno.readFile(path), model);
  assertEquals(served.server.counters[COUNT.ZERO], 3);
});

test("the size stays: no truncation, no growth, writes cut at the end", async () => {
  const size = MIB + 100;
  await using served = await serveFile({ size });
  const { path } = served.device;
  await Deno.truncate(path, size);
  for (const other of [0, size - 1, size + 1]) {
    const { stderr } = await tryShell(`truncate -s ${other} ${path}`);
    assertMatch(stderr, /Operation not permitted/);
  }
  const fd = open(path, O.RDWR);
  assertEquals(pwrite(fd, new Uint8Array(300), MIB), 100);
  assertEquals(pwrite(fd, new Uint8Array(1), size), -1);
  assertEquals(errno(), ERRNO.ENOSPC);
  assertEquals(pread(fd, new Uint8Array(10), size), 0);
  close(fd);
  assertEquals((await Deno.stat(path)).size, size);
});

test("errors of the backend are EIO", async () => {
  await using served = await serveFile({ size: MIB, manner: "failing" });
  const fd = open(served.device.path, O.RDWR);
  assertEquals(pread(fd, new Uint8Array(10), 0), -1);
  assertEquals(errno(), ERRNO.EIO);
  assertEquals(pwrite(fd, new Uint8Array(10), 0), -1);
  assertEquals(errno(), ERRNO.EIO);
  close(fd);
});

test("a read-only region cannot be opened for writing", async () => {
  await using served = await serveFile({ size: MIB, readOnly: true });
  const { path } = served.device;
  const { stderr } = await tryShell(`echo x >> ${path}`);
  assertMatch(stderr, /Read-only file system/);
  assertEquals((await Deno.stat(path)).mode! & 0o777, 0o400);
  const fd = open(path, O.RDONLY);
  using mapping = Mapping.map({ length: MIB, prot: PROT.READ, flags: MAP.SHARED, fd });
  close(fd);
  assertEquals(mapping.bytes[5], 0);
});

test("the directory holds one file, and nothing else can be made or removed", async () => {
  const size = 10 * MIB;
  await using served = await serveFile({ size });
  const { path, mountPoint } = served.device;
  assertEquals(await shell(`ls -a ${mountPoint}`), ".\n..\nregion\n");
  assertEquals(await shell(`stat -c '%a %s %h %F' ${path}`), `600 ${size} 1 regular file\n`);
  assertEquals(await shell(`stat -f -c '%s %b %a' ${path}`), "4096 2560 0\n");
  for (
    const attempt of ["touch new", "mkdir new", "rm -f region", "mv region new", "ln region new"]
  ) {
    const { stderr } = await tryShell(`cd ${mountPoint} && ${attempt}`);
    assertMatch(stderr, /Operation not permitted/, attempt);
  }
  assertMatch((await tryShell(`cat ${mountPoint}/other`)).stderr, /No such file/);
  await shell(`chmod 640 ${path} && touch -d @1000000000.5 ${path}`);
  assertEquals(await shell(`stat -c '%a %.1Y' ${path}`), "640 1000000000.5\n");
});

test("reads ahead of a sequential reader in large requests", async () => {
  const size = 32 * MIB;
  await using served = await serveFile({ size });
  await shell(`cat ${served.device.path} > /dev/null`);
  const reads = served.server.counters[COUNT.READ]!;
  assert(reads < 80, `${reads} reads of ${size} bytes`);
});

test("a mount point is used, or made and removed again", async () => {
  using directory = temporaryDirectory();
  const existing = `${directory.path}/exi sting`;
  const made = `${directory.path}/made`;
  await Deno.mkdir(existing);
  for (const at of [existing, made]) {
    await using served = await serveFile({ size: MIB, at });
    assertEquals(served.device.path, `${at}/region`);
    assertEquals((await Deno.stat(served.device.path)).size, MIB);
    await served.device.detach();
  }
  assertEquals([...Deno.readDirSync(directory.path)].map(({ name }) => name), ["exi sting"]);
});

test("a place that cannot be mounted on is refused, and nothing is left", async () => {
  using directory = temporaryDirectory();
  await Deno.writeTextFile(`${directory.path}/file`, "");
  for (const at of [directory.path, `${directory.path}/file`, `${directory.path}/a/b`]) {
    await assertRejects(() => serveFile({ size: MIB, at }), UsageError, at);
  }
  assertEquals([...Deno.readDirSync(directory.path)].length, 1);
});
