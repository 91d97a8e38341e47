/** One part of a group by its URL, wherever the group lies: its bytes, its id, and what is refused. */
import { assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { openLibc } from "../ffi/libc.ts";
import { UsageError } from "../lib/backend/errors.ts";
import { openMemory } from "../lib/backend/memory.ts";
import { groupBackends } from "../lib/host/group_backend.ts";
import { openBackend } from "../lib/host/open_backend.ts";
import { instanceId, regionId } from "../lib/host/region_id.ts";
import { Seeder, seedGroup, serve } from "../mod.ts";
import { assertBytes, pattern, readBack } from "./backend_model.ts";

openLibc();

const SIZES = { "a": 10_000, "b #2": 70_001 };

/** Runs with the path of a file in which a group of those parts lies, each filled by its number. */
async function withGroup(run: (path: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "telemap-test-" });
  try {
    const parts = Object.entries(SIZES).map(([name, size], index) => {
      const backend = openMemory({ size });
      backend.writeAt(pattern(size, index), 0);
      return { name, backend };
    });
    await using group = groupBackends(parts, 65_536);
    await Deno.writeFile(`${directory}/group`, await readBack(group, 0, group.size));
    await run(`${directory}/group`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("a part shows its bytes, and what is written to it is in it alone", () =>
  withGroup(async (path) => {
    const before = await Deno.readFile(path);
    {
      await using a = await openBackend(`part:file:${path}#a`);
      await using b = await openBackend(`part:file:${path}#b%20%232`);
      assertEquals([a.size, b.size], [10_000, 70_001]);
      assertBytes(await readBack(a, 0, a.size), pattern(10_000, 0), "a");
      assertBytes(await readBack(b, 0, b.size), pattern(70_001, 1), "b");
      await b.writeAt(pattern(100, 7), 69_901);
      await assertRejects(async () => await b.writeAt(pattern(100, 7), 69_902), RangeError);
      await b.flush();
    }
    before.set(pattern(100, 7), before.length - 100);
    assertBytes(await Deno.readFile(path), before, "The group");
  }));

Deno.test("a part of a group that is served is another region than the others", () =>
  withGroup(async (path) => {
    await using server = await serve(`file:${path}`, "telemap://127.0.0.1:0");
    await using whole = await openBackend(server.url);
    await using a = await openBackend(`part:${server.url}#a`);
    await using b = await openBackend(`part:${server.url}#b%20%232`);
    assertBytes(await readBack(b, 0, b.size), pattern(70_001, 1), "b");
    const ids = [whole, a, b].map(({ regionId }) => regionId!.toHex());
    assertEquals(new Set(ids).size, 3);
    await using again = await openBackend(`part:${server.url}#a`);
    assertEquals(again.regionId, a.regionId);
  }));

Deno.test("a part has an id that follows from its group and its name", () =>
  withGroup(async (path) => {
    const url = (url: string) => ({ kind: "url", url } as const);
    const part = regionId(url(`part:file:${path}#a`));
    assertEquals([part.length, regionId(url(`part:delay:file:${path}#rtt=1ms#%61`))], [16, part]);
    for (const other of [`file:${path}`, `part:file:${path}#b`]) {
      assertNotEquals(regionId(url(other)), part);
    }
    assertEquals(instanceId(url(`part:file:${path}#a`)), instanceId(url(`file:${path}`)));
    await Deno.remove(path);
    await Deno.writeFile(path, new Uint8Array(4096));
    assertNotEquals(regionId(url(`part:file:${path}#a`)), part);
  }));

Deno.test("a part that is not there is refused, and so is one that would move alone", () =>
  withGroup(async (path) => {
    const open = (url: string) => openBackend(url);
    await assertRejects(() => open(`part:file:${path}#c`), UsageError, "the group has a, b #2");
    await assertRejects(() => open(`part:file:${path}`), UsageError, "part:URL#NAME");
    await assertRejects(() => open("part:memory:1MiB#a"), UsageError, "no group");
    const backend = `part:file:${path}#a`, listen = "telemap://127.0.0.1:0", as = "file" as const;
    await assertRejects(() => Seeder.open({ backend, listen, as }), UsageError, "all of its group");
    const parts = [{ name: "a", backend, as }];
    await assertRejects(() => seedGroup({ parts, listen }), UsageError, "all of its group");
  }));
