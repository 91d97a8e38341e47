/**
 * The lock on the record of who owns a region, between processes: one seeds or leeches it, a second
 * one is refused and changes nothing, and goes on where the first was killed.
 */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { HandoverFile, readHandover } from "../../lib/backend/handover_file.ts";
import { holderOf } from "../../lib/backend/handover_lock.ts";
import { openLocal } from "../../lib/backend/open_local.ts";
import { telemap, TelemapProcess } from "../telemap_process.ts";
import { HandoverHolder } from "./handover_holder_process.ts";

openLibc();

async function withDirectory(run: (path: string) => Promise<void> | void): Promise<void> {
  const path = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "telemap-test-" }));
  try {
    await run(path);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

/** All names in a directory with what is in the files. */
function contentOf(path: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const { name, isDirectory } of Deno.readDirSync(path)) {
    const inner = `${path}/${name}`;
    if (!isDirectory) found[name] = Deno.readFileSync(inner).toBase64();
    else {for (const [key, value] of Object.entries(contentOf(inner))) {
        found[`${name}/${key}`] = value;
      }}
  }
  return found;
}

/** Runs a command that is to be refused as that process has the record; one that is not is killed. */
async function expectRefusal(args: string[], pid: number): Promise<void> {
  await using second = new TelemapProcess([...args, "--device", "fuse", "--json"]);
  const event = await second.next().catch(() => undefined);
  assertEquals(event, undefined, "it was not refused");
  const { code, err } = await second.end();
  assertEquals([code, err.split("\n").length], [1, 1], err);
  for (const part of ["EBUSY", "handover", `process ${pid}`, "end it"]) {
    assertStringIncludes(err, part);
  }
}

for (const scheme of ["file", "dir"]) {
  Deno.test(`${scheme}: one process seeds a region, and the next one once that is killed`, () =>
    withDirectory(async (path) => {
      const region = `${scheme}:${path}/region`;
      await openLocal(`${region}?size=1MiB`)!.close();
      {
        await using first = await HandoverHolder.start("seed", region);
        const before = contentOf(path);
        const listen = ["--listen", "telemap://127.0.0.1:0"];
        await expectRefusal(["seed", region, ...listen], first.pid);
        assertEquals(contentOf(path), before);
      }
      await using _second = await HandoverHolder.start("seed", region);
    }));

  Deno.test(`${scheme}: one process leeches to a cache, and the next one once that is killed`, () =>
    withDirectory(async (path) => {
      await openLocal(`file:${path}/source?size=1MiB`)!.close();
      await using source = await HandoverHolder.start("seed", `file:${path}/source`);
      Deno.mkdirSync(`${path}/there`);
      const cache = `${scheme}:${path}/there/copy`;
      const record = `${path}/there/copy${scheme === "dir" ? "/telemap" : ""}.handover`;
      let leech: string;
      {
        await using first = await HandoverHolder.start("leech", source.url, cache);
        leech = readHandover(record).leech;
        // It is still copying and writing: what it says of who owns the region is what must stay.
        const before = Deno.readFileSync(record);
        await expectRefusal(["leech", source.url, "--cache", cache], first.pid);
        assertEquals(Deno.readFileSync(record), before);
      }
      await using _second = await HandoverHolder.start("leech", source.url, cache);
      const { state, leech: found } = readHandover(record);
      assertEquals([state, found], ["receiving", leech]);
    }));
}

Deno.test("a lock under which nothing is written leaves no file", () =>
  withDirectory((path) => {
    const name = `${path}/r.handover`;
    {
      using file = HandoverFile.lock(name);
      assertEquals([file.record.state, holderOf(name)], ["owner", Deno.pid]);
    }
    assertEquals([...Deno.readDirSync(path)], []);
    {
      using file = HandoverFile.lock(name);
      file.write({ state: "receiving", epoch: 1, leech: "ab".repeat(16), peer: "" });
    }
    assertEquals([readHandover(name).state, holderOf(name)], ["receiving", undefined]);
  }));

Deno.test("what cannot be seeded leaves no record behind", () =>
  withDirectory(async (path) => {
    for (const scheme of ["file", "dir"]) {
      const args = ["seed", `${scheme}:${path}/missing`, "--listen", "telemap://127.0.0.1:0"];
      assertEquals((await telemap(args)).code, 1);
    }
    assertEquals([...Deno.readDirSync(path)], []);
  }));
