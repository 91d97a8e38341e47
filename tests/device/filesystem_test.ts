/**
 * A file system on a region that is served by one process and mounted by another.
 *
 * @module
 */
import { requires, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";
import { startManagedMount, startMount } from "./served_region.ts";
import { keepTree } from "./tree_on_region.ts";

const needs = requires("root", "/dev/fuse", "/dev/loop-control", "mkfs.ext4", "losetup");

Deno.test({
  name: withReason("a tree in ext4 on a served region is whole, mount after mount", needs),
  ignore: needs.ignore,
  fn: () => keepTree(256 << 20, (url) => startMount(url, "loop")),
});

Deno.test({
  name: withReason("a tree in ext4 on a managed mount is whole, and so is its remote alone", needs),
  ignore: needs.ignore,
  async fn() {
    using directory = temporaryDirectory();
    const cache = `file:${directory.path}/cache`;
    await keepTree(
      256 << 20,
      (url) => startManagedMount(`delay:${url}#rtt=25ms&rate=1GB/s`, cache, "loop"),
    );
  },
});
