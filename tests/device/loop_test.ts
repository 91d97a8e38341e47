import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { close, O, open, pread, pwrite } from "../../ffi/file.ts";
import { openLibc } from "../../ffi/libc.ts";
import { TelemapError, UsageError } from "../../lib/backend/errors.ts";
import { boundFile, probeLoop } from "../../lib/device/loop.ts";
import { readMountTable } from "../../lib/fuse/mount_table.ts";
import { requires, requiresAll, requiresThat, withReason } from "../requires.ts";
import { shell, temporaryDirectory, tryShell, until } from "./command.ts";
import { COUNT } from "./counted_backend.ts";
import { serveLoop } from "./served_file.ts";

openLibc();

const MIB = 1 << 20;
const probe = probeLoop();
const needs = requiresAll(requires("root"), requiresThat(probe.available, probe.reason));

function test(name: string, fn: () => Promise<void>, further = needs): void {
  const all = requiresAll(needs, further);
  Deno.test({ name: withReason(`loop: ${name}`, all), ignore: all.ignore, fn });
}

function attribute(path: string, name: string): string {
  return Deno.readTextFileSync(`/sys/block/${path.slice("/dev/".length)}/${name}`).trim();
}

test("the device has the region's size and bytes, cached once", async () => {
  const size = 8 * MIB;
  await using served = await serveLoop({ size });
  const { path, directIo, file } = served.device;
  assertEquals(directIo, true);
  assertEquals(attribute(path, "loop/dio"), "1");
  assertEquals(attribute(path, "queue/logical_block_size"), "4096");
  assertEquals(await shell(`blockdev --getsize64 ${path}`), `${size}\n`);
  await shell(`dd if=/dev/urandom of=${path} bs=1M count=8 oflag=direct 2>&1`);
  assertEquals(await shell(`sha256sum < ${path}`), await shell(`sha256sum < ${file.path}`));
}, requires("blockdev"));

test("a size that is a multiple of 512 only has blocks of 512", async () => {
  const size = MIB + 512;
  await using served = await serveLoop({ size });
  const { path } = served.device;
  assertEquals(attribute(path, "queue/logical_block_size"), "512");
  const fd = open(path, O.RDWR);
  assertEquals(pwrite(fd, new Uint8Array(512).fill(7), MIB), 512);
  const bytes = new Uint8Array(1024);
  assertEquals(pread(fd, bytes, MIB), 512);
  close(fd);
  assertEquals([bytes[0], bytes[511], bytes[512]], [7, 7, 0]);
});

test("a size that is no multiple of 512 is refused", async () => {
  await assertRejects(() => serveLoop({ size: MIB + 511 }), UsageError, "1049087 bytes");
});

test("fsync of the device reaches the backend's flush", async () => {
  await using served = await serveLoop({ size: MIB });
  const { counters } = served.server;
  using device = await Deno.open(served.device.path, { write: true });
  await device.write(new Uint8Array(4096).fill(1));
  const before = counters[COUNT.FLUSH]!;
  assertEquals(counters[COUNT.WRITE], 0);
  await device.sync();
  assertEquals(counters[COUNT.WRITE], 1);
  assertEquals(counters[COUNT.FLUSH], before + 1);
});

test("a discard reaches the backend and reads as zeroes", async () => {
  await using served = await serveLoop({ size: 4 * MIB });
  const { path } = served.device;
  await shell(`dd if=/dev/urandom of=${path} bs=1M count=4 oflag=direct 2>&1`);
  assertEquals(served.server.counters[COUNT.ZERO], 0);
  await shell(`blkdiscard -o ${MIB} -l ${2 * MIB} ${path}`);
  assert(served.server.counters[COUNT.ZERO]! >= 1);
  const found = await Deno.readFile(path);
  assertEquals(found.subarray(MIB, 3 * MIB).findIndex((byte) => byte !== 0), -1);
  assert(found.subarray(0, MIB).some((byte) => byte !== 0));
  assert(found.subarray(3 * MIB).some((byte) => byte !== 0));
}, requires("blkdiscard"));

test("a read-only region is a read-only device", async () => {
  await using served = await serveLoop({ size: MIB, readOnly: true });
  const { path } = served.device;
  assertEquals(attribute(path, "ro"), "1");
  assertMatch((await tryShell(`dd if=/dev/zero of=${path} count=1`)).stderr, /not permitted/);
  assertEquals((await Deno.readFile(path)).length, MIB);
});

test(
  "a file system on it holds a tree, passes its check and is there after a new attach",
  async () => {
    using directory = temporaryDirectory();
    const store = `${directory.path}/store`;
    const mountPoint = `${directory.path}/mnt`;
    const size = 64 * MIB;
    const source = new URL("../../lib", import.meta.url).pathname;
    await Deno.mkdir(mountPoint);
    {
      await using served = await serveLoop({ size, path: store });
      const { path } = served.device;
      await shell(`mkfs.ext4 -q ${path} && mount ${path} ${mountPoint}`);
      await shell(`cp -a ${source} ${mountPoint}/tree && fstrim ${mountPoint}`);
      assert(served.server.counters[COUNT.ZERO]! > 0, "fstrim reached nothing");
      await shell(`umount ${mountPoint} && e2fsck -f -n ${path}`);
      await served.device.detach();
      assertEquals(boundFile(path), undefined);
    }
    await using served = await serveLoop({ size, path: store });
    await shell(`mount ${served.device.path} ${mountPoint}`);
    try {
      await shell(`diff -r ${source} ${mountPoint}/tree`);
    } finally {
      await shell(`umount ${mountPoint}`);
    }
  },
  requires("mkfs.ext4", "e2fsck", "fstrim"),
);

test("what is in the device's page cache is in the store after detach", async () => {
  using directory = temporaryDirectory();
  const store = `${directory.path}/store`;
  await using served = await serveLoop({ size: MIB, path: store });
  await shell(`dd if=/dev/zero bs=64k count=16 2> /dev/null | tr '\\0' x > ${served.device.path}`);
  await served.device.detach();
  const found = await Deno.readFile(store);
  assertEquals(found.findIndex((byte) => byte !== "x".charCodeAt(0)), -1);
});

test("a device that is mounted is not detached, until it is unmounted or by force", async () => {
  using directory = temporaryDirectory();
  await using served = await serveLoop({ size: 16 * MIB });
  const { device } = served;
  const { mountPoint } = device.file;
  await shell(`mkfs.ext4 -q ${device.path} && mount ${device.path} ${directory.path}`);
  const busy = await assertRejects(() => device.detach(), TelemapError, "in use");
  assertEquals(busy.code, "EBUSY");
  // Nor does it go by itself later: the refusal changed nothing.
  assertEquals(attribute(device.path, "loop/autoclear"), "0");
  await shell(`touch ${directory.path}/still-works && sync -f ${directory.path}`);
  await shell(`umount ${directory.path}`);
  await device.detach();
  assertEquals(boundFile(device.path), undefined);
  assertEquals(isMounted(mountPoint), false);
}, requires("mkfs.ext4"));

test("a device that is mounted goes by force, and is free once it is unmounted", async () => {
  using directory = temporaryDirectory();
  await using served = await serveLoop({ size: 16 * MIB });
  const { device } = served;
  await shell(`mkfs.ext4 -q ${device.path} && mount ${device.path} ${directory.path}`);
  await device.detach({ force: true });
  assertEquals(isMounted(device.file.mountPoint), false);
  assertMatch(
    (await tryShell(`dd if=${device.path} of=/dev/null iflag=direct count=8`)).stderr,
    /error/,
  );
  await shell(`umount ${directory.path}`);
  await until(() => boundFile(device.path) === undefined, "the device to be free");
}, requires("mkfs.ext4"));

test("reads that hang end with an error when the device is taken away", async () => {
  await using served = await serveLoop({ size: MIB, manner: "hanging" });
  const { device, server } = served;
  const reader = tryShell(`dd if=${device.path} of=/dev/null bs=4096 count=1 iflag=direct`);
  await until(() => server.counters[COUNT.HELD]! > 0, "the read to reach the backend");
  await device.detach({ force: true });
  assertMatch((await reader).stderr, /error/);
  await until(() => boundFile(device.path) === undefined, "the device to be free");
  server.release();
});

test("many devices can be attached at once", async () => {
  const all = await Promise.all(Array.from({ length: 10 }, () => serveLoop({ size: MIB })));
  const paths = new Set(all.map(({ device }) => device.path));
  assertEquals(paths.size, 10);
  await Promise.all(all.map(({ device }) => device.detach()));
  for (const path of paths) assertEquals(boundFile(path), undefined);
  for (const served of all) await served[Symbol.asyncDispose]();
});

function isMounted(mountPoint: string): boolean {
  return readMountTable().some((entry) => entry.mountPoint === mountPoint);
}
