/**
 * What the real command line says, and leaves behind, when something is in the way: full disks,
 * taken addresses, missing permission, servers that are silent or die, and being stopped at work.
 *
 * @module
 */
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { boundFile } from "../../lib/device/loop.ts";
import { DeadlineError, mountDirect } from "../../mod.ts";
import { requires, requiresAll, withReason } from "../requires.ts";
import { telemap } from "../telemap_process.ts";
import { shell, temporaryDirectory, tryShell, until } from "./command.ts";
import { MountedFileSystem, startMount, startServer } from "./served_region.ts";

openLibc();

const needs = requires("root", "/dev/fuse", "/dev/loop-control", "losetup", "mkfs.ext4");
const DEVICES = ["fuse", "loop"] as const;
const CLOSED = { code: 0, events: [{ event: "closed" }], err: "" };

function test(name: string, fn: (place: Place) => Promise<void>, further = needs): void {
  const all = requiresAll(needs, further);
  Deno.test({
    name: withReason(name, all),
    ignore: all.ignore,
    fn: async () => {
      using place = new Place();
      await fn(place);
    },
  });
}

/** A directory in which commands mount and make what they need for a while. */
class Place implements Disposable {
  readonly path: string;
  /** For the commands. */
  readonly env: Record<string, string>;
  readonly #directory = temporaryDirectory();

  constructor() {
    const { path } = this.#directory;
    this.path = path;
    const own = `${path}/temporary`;
    Deno.mkdirSync(own);
    this.env = { TMPDIR: own, XDG_RUNTIME_DIR: own };
  }

  /** What they left: files, mounts, loop devices. */
  async leftBehind(): Promise<string[]> {
    const files = [...Deno.readDirSync(this.env["TMPDIR"]!)].map(({ name }) => name);
    const uses = await shell(`(cat /proc/mounts; losetup --all) | grep -F ${this.path} || true`);
    return [...files, ...uses.split("\n").filter((line) => line !== "")];
  }

  [Symbol.dispose](): void {
    this.#directory[Symbol.dispose]();
  }
}

/** A tmpfs of so many MiB. */
async function smallDisk(path: string, mebibytes: number): Promise<AsyncDisposable> {
  await Deno.mkdir(path);
  await shell(`mount -t tmpfs -o size=${mebibytes}M tmpfs ${path}`);
  return { [Symbol.asyncDispose]: async () => void await shell(`umount ${path}`) };
}

/** Writes so many MiB at random; answers what dd said. */
async function write(path: string, mebibytes: number, options: string): Promise<string> {
  const dd = `dd if=/dev/urandom of=${path} bs=64k count=${16 * mebibytes} ${options}`;
  return (await tryShell(dd)).stderr;
}

test("a full disk is the writer's error by fuse, at once", async (place) => {
  await using _disk = await smallDisk(`${place.path}/disk`, 4);
  const url = `file:${place.path}/disk/region?size=64MiB`;
  const { process, path } = await startMount(url, "fuse", place.env);
  await using _process = process;
  assertStringIncludes(await write(path, 8, "conv=notrunc"), "No space left on device");
  process.kill("SIGTERM");
  assertEquals(await process.end(), CLOSED);
});

test("a full disk is the error of whoever syncs by loop, and of who stops else", async (place) => {
  await using _disk = await smallDisk(`${place.path}/disk`, 4);
  const url = `file:${place.path}/disk/region?size=64MiB`;
  const { process, path } = await startMount(url, "loop", place.env);
  await using _process = process;
  const said = await write(path, 8, "conv=notrunc,fsync");
  assertStringIncludes(said, "fsync failed");
  await write(path, 8, "conv=notrunc seek=256");
  process.kill("SIGTERM");
  const { code, events, err } = await process.end();
  assertEquals({ code, events }, { code: 1, events: [] });
  assertMatch(err, new RegExp(`^telemap: Cannot write ${path} back: [^\\n]+$`));
  assertEquals(boundFile(path), undefined);
  assertEquals(await place.leftBehind(), [
    `tmpfs ${place.path}/disk tmpfs rw,relatime,size=4096k 0 0`,
  ]);
});

test("an address that is taken stays with whoever has it", async (place) => {
  const socket = `${place.path}/socket`, region = `${place.path}/region`;
  const urls = ["telemap://127.0.0.1:0", `nbd+unix:///?socket=${socket}`];
  for (const listen of urls) {
    const server = await startServer("memory:1MiB", listen);
    await using _server = server.process;
    const other = ["serve", `file:${region}?size=1MiB`, "--listen", server.url];
    const { code, out, err } = await telemap(other, place.env);
    assertEquals({ code, out }, { code: 1, out: "" });
    assertMatch(err, /^telemap: [^\n]* EADDRINUSE; [^\n]+$/);
    await assertRejects(() => Deno.stat(region), Deno.errors.NotFound);
    assertEquals((await telemap(["info", server.url])).code, 0);
    server.process.kill("SIGTERM");
    assertEquals((await server.process.end()).code, 0);
  }
  assertEquals([...Deno.readDirSync(place.path)].map(({ name }) => name), ["temporary"]);
});

test("without permission there is no device, one line why, and nothing else", async (place) => {
  // Root without a capability may read this repository, wherever it is, and mount nothing.
  const drop = "setpriv --bounding-set=-all --inh-caps=-all";
  const program = new URL("../../cmd/telemap.ts", import.meta.url).pathname;
  const run = `${drop} ${Deno.execPath()} run --quiet --no-check --allow-all ${program}`;
  const own = `TMPDIR=${place.env["TMPDIR"]} XDG_RUNTIME_DIR=${place.env["TMPDIR"]}`;
  for (const device of DEVICES) {
    const { success, stdout, stderr } = await tryShell(
      `${own} ${run} mount memory:1MiB --device ${device}`,
    );
    assertEquals({ success, stdout }, { success: false, stdout: "" });
    assertMatch(stderr, /^telemap: Cannot [^\n]+; [^\n]+\n$/);
  }
  assertEquals(await place.leftBehind(), []);
}, requires("setpriv"));

test("a server that takes connections and says nothing is given up", async (place) => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const url = `telemap://127.0.0.1:${listener.addr.port}`;
  const { code, out, err } = await telemap(["mount", url, "--device", "loop"], place.env);
  assertEquals({ code, out }, { code: 1, out: "" });
  assertMatch(err, /^telemap: telemap:[^\n]* did not answer the hello within 10000 ms$/);
  assertEquals(await place.leftBehind(), []);
});

test("fuse: being stopped at work keeps all that was acknowledged", async (place) => {
  const region = `${place.path}/region`;
  const { process, path } = await startMount(`file:${region}?size=2GiB`, "fuse", place.env);
  await using _process = process;
  const writing = tryShell(`yes telemap | dd of=${path} bs=64k iflag=fullblock conv=notrunc`);
  await until(() => (Deno.statSync(region).blocks ?? 0) > 0, "the first bytes to be there");
  process.kill("SIGTERM");
  assertEquals(await process.end(), CLOSED);
  const { stderr } = await writing;
  assertMatch(stderr, /connection abort|not connected/);
  const bytes = 65536 * Number(/^(\d+)\+0 records out$/m.exec(stderr)?.[1]);
  console.log(`${bytes} bytes were acknowledged`);
  await shell(`yes telemap | cmp -n ${bytes} - ${region}`);
  assertEquals(await place.leftBehind(), []);
});

test("loop: being stopped at work waits for the writer, and for the file system", async (place) => {
  const region = `${place.path}/region`;
  const mount = await startMount(`file:${region}?size=64MiB`, "loop", place.env);
  await using _process = mount.process;
  await shell(`mkfs.ext4 -q ${mount.path}`);
  await using files = await MountedFileSystem.mount(mount.path);
  const writing = write(`${files.path}/file`, 32, "");
  mount.process.kill("SIGTERM");
  await writing;
  const sum = await shell(`sha256sum < ${files.path}/file`);
  await files.unmount();
  const { code, events, err } = await mount.process.end();
  assertEquals({ code, events }, { code: 0, events: [{ event: "closed" }] });
  assertEquals(
    err,
    `telemap: ${mount.path} is in use; unmount what is on it, ` +
      "or send a second signal and lose what is not written",
  );
  assertEquals(await place.leftBehind(), []);
  await using store = await MountedFileSystem.mount(region, "loop,ro");
  assertEquals(await shell(`sha256sum < ${store.path}/file`), sum);
  await store.unmount();
});

for (const device of DEVICES) {
  test(`${device}: with a dead server, a mount that is closed ends in time and says so`, async () => {
    const server = await startServer("memory:16MiB");
    await using _server = server.process;
    const mount = await mountDirect({ backend: server.url, device, as: "path", closeMs: 1500 });
    assertMatch(await write(mount.path, 1, "conv=notrunc,fsync"), /MB.* copied/);
    server.process.kill("SIGKILL");
    await server.process.end();
    const writing = write(mount.path, 1, "conv=notrunc,fsync");
    await until(() => isWaiting(mount.path), "the writer to wait");
    const start = performance.now();
    const error = await assertRejects(() => mount.close(), DeadlineError);
    assertStringIncludes(error.message, `Cannot write ${mount.path} back within 1.5 s`);
    assert(performance.now() - start < 8000, "closing took too long");
    assertMatch(await writing, /connection abort|not connected|Input\/output error/);
    assertEquals(await shell(`grep -F ${mount.path} /proc/mounts || true`), "");
    await until(() => boundFile(mount.path) === undefined, "the loop device to be free");
  });

  test(`${device}: a second signal ends a mount that waits for a dead server`, async (place) => {
    const server = await startServer("memory:16MiB");
    await using _server = server.process;
    const mount = await startMount(server.url, device, place.env);
    await using _mount = mount.process;
    server.process.kill("SIGKILL");
    await server.process.end();
    const writing = write(mount.path, 1, "conv=notrunc,fsync");
    await until(() => isWaiting(mount.path), "the writer to wait");
    mount.process.kill("SIGTERM");
    // Until the first signal is seen, another one is the same.
    const impatient = setInterval(() => mount.process.kill("SIGTERM"), 100);
    const { code, err } = await mount.process.end();
    clearInterval(impatient);
    assertEquals(code, 143);
    assertMatch(err, /^Lost telemap:[^\n]+$/);
    assertMatch(await writing, /connection abort|not connected|Input\/output error/);
    await telemap(["doctor", "--clean"]);
    assertEquals(await place.leftBehind(), []);
    await until(() => boundFile(mount.path) === undefined, "the loop device to be free");
  });
}

for (const device of DEVICES) {
  test(`${device}: a server that forgot its region shows errors, not zeroes`, async (place) => {
    const server = await startServer("memory:16MiB");
    await using _server = server.process;
    const mount = await startMount(server.url, device, place.env);
    await using _mount = mount.process;
    assertMatch(await write(mount.path, 1, "conv=notrunc,fsync"), /MB.* copied/);
    server.process.kill("SIGKILL");
    await server.process.end();
    const other = await startServer("memory:16MiB", server.url);
    await using _other = other.process;
    // Never read before, so in no cache.
    const reading = `dd if=${mount.path} of=/dev/null bs=4k count=1 skip=3000 iflag=direct`;
    assertStringIncludes((await tryShell(reading)).stderr, "Input/output error");
    assertStringIncludes(await write(mount.path, 1, "conv=notrunc,fsync"), "Input/output error");
    mount.process.kill("SIGTERM");
    const { code, events, err } = await mount.process.end();
    assertEquals({ code, events }, { code: 1, events: [] });
    assertStringIncludes(err, `Lost ${server.url} for good: ${server.url} has another region now`);
    assertMatch(err, /\ntelemap: Cannot write [^\n]+$/);
    assertEquals(await place.leftBehind(), []);
  });
}

test("a mount that is killed under a file system leaves nothing once that is gone", async (place) => {
  const mount = await startMount(`file:${place.path}/region?size=64MiB`, "loop", place.env);
  await using _process = mount.process;
  await shell(`mkfs.ext4 -q ${mount.path}`);
  await using files = await MountedFileSystem.mount(mount.path);
  await Deno.writeTextFile(`${files.path}/synced`, "kept");
  await shell(`sync ${files.path}/synced`);
  mount.process.kill("SIGKILL");
  assertEquals((await mount.process.end()).code, 137);
  await files.unmount();
  await until(() => boundFile(mount.path) === undefined, "the loop device to be free");
  await telemap(["doctor", "--clean"]);
  assertEquals(await place.leftBehind(), []);
  await using store = await MountedFileSystem.mount(`${place.path}/region`, "loop");
  assertEquals(await Deno.readTextFile(`${store.path}/synced`), "kept");
  await store.unmount();
});

/** Whether a dd sleeps while it writes to a path. */
function isWaiting(path: string): boolean {
  return [...Deno.readDirSync("/proc")].some(({ name }) => {
    try {
      const command = Deno.readTextFileSync(`/proc/${name}/cmdline`);
      if (!command.startsWith("dd\0") || !command.includes(`of=${path}\0`)) return false;
      return /^State:\t[DS]/m.test(Deno.readTextFileSync(`/proc/${name}/status`));
    } catch {
      return false;
    }
  });
}
