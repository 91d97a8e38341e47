import { assertEquals, assertNotEquals } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { instanceId, regionId } from "./region_id.ts";
import type { PortableSource } from "./source.ts";

openLibc();

const url = (text: string): PortableSource => ({ kind: "url", url: text });

/** Removes a file and makes it again, until the coarse clock of its file system has gone on. */
async function makeAnew(path: string): Promise<void> {
  const before = (await Deno.stat(path)).birthtime!;
  do {
    await Deno.remove(path);
    await Deno.writeFile(path, new Uint8Array(4096));
  } while ((await Deno.stat(path)).birthtime! <= before);
}

Deno.test("what is lost with its process is another region, and instance, each time", () => {
  const forgetful = [
    url("memory:1MiB"),
    { kind: "module", module: "file:///mine.ts", options: undefined } as const,
  ];
  for (const source of forgetful) {
    assertEquals(regionId(source).length, 16);
    assertNotEquals(regionId(source), regionId(source));
    assertNotEquals(instanceId(source), instanceId(source));
  }
});

Deno.test("a remote region stays itself, and may have forgotten writes each time", () => {
  const source = url("nbd://127.0.0.1/disk");
  assertEquals(regionId(source), regionId(source));
  assertNotEquals(regionId(source), regionId(url("nbd://127.0.0.1/other")));
  assertNotEquals(instanceId(source), instanceId(source));
});

Deno.test("a remote region is another one in another version", () => {
  const source = url("https://host/object");
  assertEquals(regionId(source, '"1"'), regionId(source, '"1"'));
  assertNotEquals(regionId(source, '"1"'), regionId(source, '"2"'));
  assertNotEquals(regionId(source, '"1"'), regionId(url("https://host/other"), '"1"'));
});

Deno.test("a pattern is known by its size and seed, and loses nothing", () => {
  const id = regionId(url("pattern:1GiB"));
  assertEquals(regionId(url("pattern:1024MiB?seed=0")), id);
  assertNotEquals(regionId(url("pattern:1GiB?seed=1")), id);
  assertNotEquals(regionId(url("pattern:2GiB")), id);
  assertEquals(instanceId(url("pattern:1GiB")), instanceId(url("pattern:1GiB")));
});

Deno.test("a group is what its parts are, in their order", () => {
  const group = (...urls: string[]): PortableSource => ({
    kind: "seeded",
    source: {
      kind: "group",
      parts: urls.map((text, index) => ({ name: `${index}`, source: url(text) })),
    },
    options: { chunkSize: 65536, group: true },
  });
  const [one, other] = ["pattern:1MiB", "pattern:2MiB"] as const;
  assertEquals(regionId(group(one, other)), regionId(group(one, other)));
  assertEquals(regionId(group(one, other)).length, 16);
  assertNotEquals(regionId(group(one, other)), regionId(group(other, one)));
  assertNotEquals(regionId(group(one)), regionId(group(one, one)));
  assertNotEquals(regionId(group(one)), regionId(url(one)));
  assertEquals(instanceId(group(one, other)), instanceId(group(one, other)));
  for (const id of [regionId, instanceId]) {
    assertNotEquals(id(group(one, "memory:1MiB")), id(group(one, "memory:1MiB")));
  }
});

Deno.test("a delayed region is the region itself", () => {
  for (const fragment of ["", "#rtt=1ms", "#rtt=2ms&seed=1"]) {
    const delayed = url(`delay:delay:pattern:1GiB#rtt=5ms${fragment}`);
    assertEquals(regionId(delayed), regionId(url("pattern:1GiB")));
    assertEquals(instanceId(delayed), instanceId(url("pattern:1GiB")));
  }
  assertNotEquals(regionId(url("delay:memory:1MiB")), regionId(url("delay:memory:1MiB")));
});

Deno.test("a file stays itself until it is made anew, and keeps what it was given", async () => {
  const directory = await Deno.makeTempDir({ prefix: "telemap-test-" });
  try {
    const [path, link] = [`${directory}/region`, `${directory}/link`];
    await Deno.writeFile(path, new Uint8Array(4096));
    await Deno.symlink(path, link);
    const source = url(`file:${path}`);
    const before = regionId(source);
    assertEquals(regionId(url(`file://${link}?size=4KiB`)), before);
    assertEquals(
      regionId({ kind: "shared", shared: { kind: "file", url: `file:${path}` } }),
      before,
    );
    assertEquals(instanceId(source), instanceId(url(`dir:${directory}`)));
    // It may well be given the inode of the old one.
    await makeAnew(path);
    assertNotEquals(regionId(source), before);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
