/**
 * Mounts by the `nbd` device, of the command line and of the library. Runs inside the virtual
 * machine (see `../vm_test.ts`), as root, with nothing else that uses NBD devices.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { openLibc } from "../../../ffi/libc.ts";
import { readAttribute } from "../../../lib/device/sysfs.ts";
import { mountDirect } from "../../../mod.ts";
import { shell, temporaryDirectory, tryShell, until } from "../../device/command.ts";
import { COUNT, makeCounters } from "../../device/counted_backend.ts";
import { MountedFileSystem, startManagedMount, startMount } from "../../device/served_region.ts";
import { keepTree } from "../../device/tree_on_region.ts";
import { telemap, TelemapProcess } from "../../telemap_process.ts";

openLibc();

const MIB = 1 << 20;
const COUNTED = import.meta.resolve("./counted_module.ts");

/** Whether nothing is attached to a device. */
function isFree(path: string): boolean {
  const block = `/sys/block/${path.slice("/dev/".length)}`;
  return readAttribute(`${block}/size`) === "0" && readAttribute(`${block}/pid`) === undefined;
}

Deno.test("a tree in ext4 on a served region is whole, mount after mount", () => {
  return keepTree(64 * MIB, (url) => startMount(url, "nbd"));
});

Deno.test("a tree in ext4 on a managed mount is whole, and so is its remote alone", async () => {
  using directory = temporaryDirectory();
  const cache = `file:${directory.path}/cache`;
  await keepTree(
    64 * MIB,
    (url) => startManagedMount(`delay:${url}#rtt=25ms`, cache, "nbd"),
  );
});

Deno.test("auto takes the nbd device, and says why", async () => {
  await using mount = new TelemapProcess(["mount", "memory:8MiB", "--device", "auto", "--json"]);
  const { path, ...ready } = await mount.next();
  assertEquals(ready, {
    event: "ready",
    device: "nbd",
    size: 8 * MIB,
    durable: false,
    readOnly: false,
    reason: "the best there is",
  });
  assertEquals(await shell(`blockdev --getsize64 ${path}`), `${8 * MIB}\n`);
  mount.kill("SIGINT");
  assertEquals(await mount.end(), { code: 0, events: [{ event: "closed" }], err: "" });
  assert(isFree(`${path}`));
});

Deno.test("doctor --clean frees what killed mounts left, once it is unmounted", async () => {
  const [unused, used] = await Promise.all(
    ["memory:1MiB", "memory:16MiB"].map((backend) => startMount(backend, "nbd")),
  );
  await using first = unused!.process;
  await using second = used!.process;
  await shell(`mkfs.ext4 -q ${used!.path}`);
  await using files = await MountedFileSystem.mount(used!.path);
  for (const process of [first, second]) {
    process.kill("SIGKILL");
    await process.end();
  }
  assert(!isFree(unused!.path));
  const { code, out, err } = await telemap(["doctor", "--clean", "--json"]);
  assertEquals({ code, err }, { code: 0, err: "" });
  const { cleaned, stale } = JSON.parse(out) as Record<string, string[]>;
  assertEquals({ cleaned, stale }, { cleaned: [unused!.path], stale: [used!.path] });
  assert(isFree(unused!.path));
  // Nobody answers, and nothing waits for it.
  const write = await tryShell(`echo lost > ${files.path}/file && sync -f ${files.path}`);
  assertEquals(write.success, false);
  await files.unmount();
  await until(() => isFree(used!.path), `${used!.path} to be free`);
});

Deno.test("a slice of an nbd device is what the file behind it holds", async () => {
  using directory = temporaryDirectory();
  const region = `${directory.path}/region`;
  const size = 16 * MIB, middle = 5 * MIB + 4093;
  const content = crypto.getRandomValues(new Uint8Array(65536));
  await Deno.writeFile(region, content);
  await Deno.truncate(region, size);
  const mount = await mountDirect({ backend: `file:${region}`, device: "nbd", as: "slice" });
  await using _mount = mount;
  assertEquals([mount.device, mount.bytes.length], ["nbd", size]);
  assertEquals(mount.bytes.subarray(0, content.length), content);
  mount.bytes.set(content, middle);
  mount.bytes[size - 1] = 42;
  await mount.sync();
  const synced = await Deno.readFile(region);
  assertEquals(synced.subarray(middle, middle + content.length), content);
  assertEquals(synced.subarray(size - 2), new Uint8Array([0, 42]));
  mount.bytes[0]! ^= 255;
  await mount.close();
  assertEquals(mount.bytes.length, 0);
  assertEquals((await Deno.readFile(region))[0], content[0]! ^ 255);
  assert(isFree(mount.path));
});

Deno.test("fsync, and writes that are to be durable, flush the backend", async () => {
  const counters = makeCounters();
  const count = (counter: number) => Atomics.load(counters, counter);
  const options = { size: 4 * MIB, counters };
  await using mount = await mountDirect({
    backend: { module: COUNTED, options },
    device: "nbd",
    as: "file",
  });
  await mount.file.write(new Uint8Array(8192).fill(1));
  assertEquals([count(COUNT.WRITE), count(COUNT.FLUSH)], [0, 0]);
  await mount.file.syncData();
  assert(count(COUNT.WRITE) > 0);
  assertEquals(count(COUNT.FLUSH), 1);

  const dd = `dd if=/dev/zero of=${mount.path} bs=4K count=1 oflag=direct`;
  await shell(`${dd},sync 2>&1`);
  const durable = count(COUNT.FLUSH);
  assert(durable > 1, "nothing was flushed for a write with O_SYNC");
});
