/**
 * A file system on a region that is served by one process and mounted by another.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { requires, withReason } from "../requires.ts";
import { shell, temporaryDirectory } from "./command.ts";
import { MountedFileSystem, startMount, startServer } from "./served_region.ts";

const needs = requires("root", "/dev/fuse", "/dev/loop-control", "mkfs.ext4", "losetup");
const MIB = 1 << 20;
const SOURCES = new URL("../../lib", import.meta.url).pathname;
const CLOSED = { code: 0, events: [{ event: "closed" }], err: "" };

/** Fills a directory with real files, large and empty ones, links, and names that are not ASCII. */
async function makeTree(path: string): Promise<void> {
  await shell(`cp -a ${SOURCES} ${path}`);
  for (const [name, size] of [["large", 24 * MIB + 1], ["larger", 32 * MIB], ["empty", 0]]) {
    await shell(`head -c ${size} /dev/urandom > ${path}/${name}`);
  }
  await shell(`truncate -s 40M ${path}/sparse && printf x >> ${path}/sparse`);
  await shell(`ln -s large ${path}/symbolic && ln ${path}/large ${path}/hard`);
  await shell(`mkdir '${path}/Übersicht, leer' && chmod 750 ${path}/host`);
}

/** Tells trees apart by any name, type, mode, owner, time, link or byte. */
async function fingerprint(path: string): Promise<string> {
  return await shell(`tar --sort=name --sparse -C ${path} -c . | sha256sum`);
}

Deno.test({
  name: withReason("a tree in ext4 on a served region is whole, mount after mount", needs),
  ignore: needs.ignore,
  async fn() {
    using directory = temporaryDirectory();
    const tree = `${directory.path}/tree`, region = `${directory.path}/region`;
    await makeTree(tree);
    const expected = await fingerprint(tree);
    const server = await startServer(`file:${region}?size=256MiB`);
    await using _server = server.process;
    {
      const mount = await startMount(server.url, "loop");
      await using _mount = mount.process;
      await shell(`mkfs.ext4 -q ${mount.path}`);
      await using files = await MountedFileSystem.mount(mount.path);
      await shell(`cp -a ${tree} ${files.path}/tree`);
      await files.unmount();
      mount.process.kill("SIGTERM");
      assertEquals(await mount.process.end(), CLOSED);
    }
    {
      const mount = await startMount(server.url, "loop");
      await using _mount = mount.process;
      await using files = await MountedFileSystem.mount(mount.path);
      await shell(`diff -r --no-dereference ${tree} ${files.path}/tree`);
      assertEquals(await fingerprint(`${files.path}/tree`), expected);
      await files.unmount();
      await shell(`e2fsck -fn ${mount.path} 2>&1`);
      mount.process.kill("SIGTERM");
      assertEquals(await mount.process.end(), CLOSED);
    }
    server.process.kill("SIGTERM");
    assertEquals(await server.process.end(), CLOSED);
    await using files = await MountedFileSystem.mount(region, "loop,ro");
    assertEquals(await fingerprint(`${files.path}/tree`), expected);
    await files.unmount();
  },
});
