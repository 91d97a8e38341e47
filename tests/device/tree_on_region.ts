/**
 * The scenario of a directory tree in a file system on a region that one process serves and another
 * mounts, by any block device.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { TelemapProcess } from "../telemap_process.ts";
import { shell, temporaryDirectory } from "./command.ts";
import { MountedFileSystem, startServer } from "./served_region.ts";

const SOURCES = new URL("../../lib", import.meta.url).pathname;

/** Mounts what is served at a URL as a block device. */
export type StartMount = (url: string) => Promise<{ process: TelemapProcess; path: string }>;

/**
 * Copies a tree into ext4 on a region of `size` bytes, and finds it whole after every mount, and in
 * what was served, alone.
 */
export async function keepTree(size: number, startMount: StartMount): Promise<void> {
  using directory = temporaryDirectory();
  const tree = `${directory.path}/tree`, region = `${directory.path}/region`;
  await makeTree(tree, size);
  const expected = await fingerprint(tree);
  const server = await startServer(`file:${region}?size=${size}`);
  await using _server = server.process;
  {
    const mount = await startMount(server.url);
    await using _mount = mount.process;
    await shell(`mkfs.ext4 -q ${mount.path}`);
    await using files = await MountedFileSystem.mount(mount.path);
    await shell(`cp -a ${tree} ${files.path}/tree`);
    await files.unmount();
    await close(mount.process);
  }
  {
    const mount = await startMount(server.url);
    await using _mount = mount.process;
    await using files = await MountedFileSystem.mount(mount.path);
    await shell(`diff -r --no-dereference ${tree} ${files.path}/tree`);
    assertEquals(await fingerprint(`${files.path}/tree`), expected);
    await files.unmount();
    await shell(`e2fsck -fn ${mount.path} 2>&1`);
    await close(mount.process);
  }
  await close(server.process);
  await using files = await MountedFileSystem.mount(region, "loop,ro");
  assertEquals(await fingerprint(`${files.path}/tree`), expected);
  await files.unmount();
}

async function close(process: TelemapProcess): Promise<void> {
  process.kill("SIGTERM");
  const { code, events, err } = await process.end();
  assertEquals({ code, last: events.at(-1), err }, {
    code: 0,
    last: { event: "closed" },
    err: "",
  });
}

/**
 * Fills a directory with real files, large and empty ones, links, and names that are not ASCII,
 * that take less than half of a file system of `size` bytes.
 */
async function makeTree(path: string, size: number): Promise<void> {
  await shell(`cp -a ${SOURCES} ${path}`);
  for (const [name, length] of [["large", size / 16 + 1], ["larger", size / 8], ["empty", 0]]) {
    await shell(`head -c ${length} /dev/urandom > ${path}/${name}`);
  }
  await shell(`truncate -s ${size / 4} ${path}/sparse && printf x >> ${path}/sparse`);
  await shell(`ln -s large ${path}/symbolic && ln ${path}/large ${path}/hard`);
  await shell(`mkdir '${path}/Übersicht, leer' && chmod 750 ${path}/host`);
}

/** Tells trees apart by any name, type, mode, owner, time, link or byte. */
async function fingerprint(path: string): Promise<string> {
  return await shell(`tar --sort=name --sparse -C ${path} -c . | sha256sum`);
}
