import { assert, assertEquals } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { parseMountTable, readMountTable } from "./mount_table.ts";

openLibc();

Deno.test("lines with and without tags are taken apart, and escapes undone", () => {
  const text = "22 27 0:21 / /proc rw,relatime - proc proc rw\n" +
    "99 27 0:52 / /mnt/a\\040b\\134c rw,nosuid shared:1 master:2 - fuse.telemap telemap:1:2:3 rw\n";
  assertEquals(parseMountTable(text), [
    { device: "0:21", mountPoint: "/proc", type: "proc", source: "proc" },
    {
      device: "0:52",
      mountPoint: "/mnt/a b\\c",
      type: "fuse.telemap",
      source: "telemap:1:2:3",
    },
  ]);
});

Deno.test("lines of another form are left out", () => {
  assertEquals(parseMountTable("\nrubbish\n1 2 0:3 / /x rw - proc\n"), []);
});

Deno.test("the root of this host is mounted", () => {
  assert(readMountTable().some(({ mountPoint }) => mountPoint === "/"));
});
