/**
 * A file system on a region that is served by one process and mounted by another.
 *
 * @module
 */
import { requires, withReason } from "../requires.ts";
import { keepTree } from "./tree_on_region.ts";

const needs = requires("root", "/dev/fuse", "/dev/loop-control", "mkfs.ext4", "losetup");

Deno.test({
  name: withReason("a tree in ext4 on a served region is whole, mount after mount", needs),
  ignore: needs.ignore,
  fn: () => keepTree("loop", 256 << 20),
});
