/**
 * `telemap migrate status` and `recover`, on records as each crash leaves them, and on those of
 * processes that were killed.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { HandoverFile, handoverPath, readHandover } from "../../lib/backend/handover_file.ts";
import type { HandoverState } from "../../lib/backend/handover_record.ts";
import { parseLocalUrl } from "../../lib/backend/local_url.ts";
import { openLocal } from "../../lib/backend/open_local.ts";
import { openJournal } from "../../lib/chunk/journal_file.ts";
import { pattern } from "../backend_model.ts";
import { telemap } from "../telemap_process.ts";
import { HandoverHolder } from "./handover_holder_process.ts";

openLibc();

const LEECH = "ab".repeat(16), PEER = "telemap://there:4100";
const CHUNK = 65536, SIZE = 4 * CHUNK;

async function withDirectory(run: (path: string) => Promise<void>): Promise<void> {
  const path = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "telemap-test-" }));
  try {
    await run(path);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

/** Makes a region with such a record, and a journal in which nothing is local. */
async function regionOf(url: string, state: HandoverState, epoch = 3): Promise<string> {
  const cache = openLocal(`${url}?size=${SIZE}`)!;
  const path = handoverPath(parseLocalUrl(url))!;
  const journal = await openJournal({
    ...{ url, cache, size: SIZE, chunkSize: CHUNK },
    remote: { id: new Uint8Array(16).fill(0xcd) },
  });
  await journal.close();
  await cache.close();
  using file = HandoverFile.lock(path);
  file.write({ state, epoch, leech: LEECH, peer: PEER });
  return path;
}

type Line = Record<string, unknown>;

async function migrate(...args: string[]): Promise<{ code: number; lines: Line[]; err: string }> {
  const { code, out, err } = await telemap(["migrate", ...args, "--json"]);
  return { code, lines: out === "" ? [] : out.split("\n").map((line) => JSON.parse(line)), err };
}

/** By state: role, verdict, writable, code of recover, what is next. */
const EXPECTED: Record<HandoverState, [string, string, boolean, number, string[]]> = {
  owner: ["owner", "owned", true, 0, ["nothing"]],
  receiving: ["target", "copy", false, 1, [`telemap leech ${PEER} --cache`, "--source-is-dead"]],
  confirming: ["target", "undecided", false, 1, ["telemap seed", `telemap leech ${PEER} --cache`]],
  taken: ["target", "incomplete", false, 0, [`telemap leech ${PEER} --cache`]],
  given: ["source", "fenced", false, 0, ["telemap seed"]],
  released: ["source", "fenced", false, 0, ["may be removed"]],
};

for (const scheme of ["file", "dir"]) {
  for (const [state, [role, verdict, writable, code, next]] of Object.entries(EXPECTED)) {
    Deno.test(`${scheme}: status tells of ${state}, and recover changes nothing in it`, () =>
      withDirectory(async (path) => {
        const url = `${scheme}:${path}/region`;
        const record = await regionOf(url, state as HandoverState);
        const before = Deno.readFileSync(record);
        const status = await migrate("status", url);
        assertEquals([status.code, status.err, status.lines.length], [0, "", 1]);
        const [line] = status.lines as [Line];
        assertEquals(
          [line["role"], line["state"], line["verdict"], line["writable"], line["epoch"]],
          [role, state, verdict, writable, 3],
        );
        assertEquals([line["leech"], line["peer"], line["holder"]], [LEECH, PEER, undefined]);
        if (role === "target") assertEquals(line["region"], "cd".repeat(16));
        else assertMatch(`${line["region"]}`, /^[0-9a-f]{32}$/);
        for (const part of next) assertStringIncludes(`${line["next"]}`, part);
        const recovered = await migrate("recover", url);
        assertEquals([recovered.code, recovered.lines], [code, status.lines]);
        assertEquals(recovered.err.split("\n").length, 1);
        assertEquals(recovered.err === "", code === 0);
        assertEquals(Deno.readFileSync(record), before);
      }));
  }
}

for (const state of ["receiving", "confirming", "taken"] as const) {
  Deno.test(`a target in ${state} becomes the owner where its source is dead, and says what is missing`, () =>
    withDirectory(async (path) => {
      const url = `file:${path}/region`;
      const record = await regionOf(url, state);
      const { code, lines: [line], err } = await migrate("recover", url, "--source-is-dead");
      assertEquals([code, err], [0, ""]);
      assertEquals([line!["state"], line!["before"], line!["epoch"]], ["owner", state, 4]);
      assertEquals(line!["absent"], {
        ...{ size: SIZE, bytes: SIZE, ranges: [{ offset: 0, length: SIZE }] },
      });
      const { promoted, leech, peer } = readHandover(record);
      assertEquals([promoted, leech, peer], [true, LEECH, PEER]);
      // Which is what the fence lets through.
      await openLocal(url)!.close();
      const again = Deno.readFileSync(record);
      assertEquals((await migrate("recover", url, "--source-is-dead")).code, 0);
      assertEquals(Deno.readFileSync(record), again);
    }));
}

for (const state of ["given", "released"] as const) {
  Deno.test(`a source that has ${state} the region stays fenced, whoever is dead`, () =>
    withDirectory(async (path) => {
      const record = await regionOf(`file:${path}/region`, state);
      const before = Deno.readFileSync(record);
      const { code, lines: [line] } = await migrate(
        ...["recover", `file:${path}/region`, "--source-is-dead"] as const,
      );
      assertEquals([code, line!["verdict"], line!["writable"]], [0, "fenced", false]);
      assertEquals(Deno.readFileSync(record), before);
    }));
}

Deno.test("a target of which nothing is here does not become the owner", () =>
  withDirectory(async (path) => {
    const name = `${path}/region.handover`;
    {
      using file = HandoverFile.lock(name);
      file.write({ state: "receiving", epoch: 0, leech: LEECH, peer: PEER });
    }
    const before = Deno.readFileSync(name);
    const args = ["migrate", "recover", `file:${path}/region`, "--source-is-dead"];
    const { code, err } = await telemap(args);
    assertEquals([code, err.split("\n").length], [1, 1]);
    assertStringIncludes(err, "nothing of it is known to be here");
    assertEquals(Deno.readFileSync(name), before);
  }));

Deno.test("people are told of several regions, also where one of them fails", () =>
  withDirectory(async (path) => {
    const urls = [`file:${path}/never`, `file:${path}/damaged`, `file:${path}/taken`];
    for (const url of urls.slice(0, 2)) await openLocal(`${url}?size=4096`)!.close();
    await regionOf(urls[2]!, "taken");
    Deno.writeFileSync(`${path}/damaged.handover`, new Uint8Array(8192).fill(7));
    const { code, out, err } = await telemap(["migrate", "status", ...urls]);
    assertEquals([code, err.split("\n").length], [1, 1], err);
    assertStringIncludes(err, "damaged.handover");
    for (const part of ["it never moved", "taken, epoch 3", PEER, "Missing   256KiB"]) {
      assertStringIncludes(out, part);
    }
    assertEquals([...Deno.readDirSync(path)].some(({ name }) => name === "never.handover"), false);
  }));

Deno.test("wrong use of migrate is one line and exit code 2", async () => {
  for (
    const args of [
      [],
      ["status"],
      ["move", "file:/x"],
      ["status", "memory:1MiB"],
      ["status", "file:/x", "telemap://there"],
      ["status", "file:/x", ""],
      ["status", "file:/x", "--source-is-dead"],
    ]
  ) {
    const { code, out, err } = await telemap(["migrate", ...args]);
    assertEquals({ args, code, out }, { args, code: 2, out: "" });
    assertMatch(err, /^telemap: [^\n]+$/);
  }
  assertEquals((await telemap(["migrate", "status", "file:/no/such/region"])).code, 1);
});

Deno.test("a copy whose leecher and source were killed becomes the region", () =>
  withDirectory(async (path) => {
    const bytes = pattern(SIZE, 7);
    const source = openLocal(`file:${path}/source?size=${SIZE}`)!;
    await source.writeAt(bytes, 0);
    await source.close();
    const [from, to] = [`file:${path}/source`, `file:${path}/copy`];
    {
      await using seeder = await HandoverHolder.start("seed", from);
      await using leecher = await HandoverHolder.start("leech", seeder.url, to);
      await leecher.next("copied");
      const { lines } = await migrate("status", from, to);
      assertEquals(lines.map((line) => line["holder"]), [seeder.pid, leecher.pid]);
      assertEquals(lines.map((line) => line["state"]), ["owner", "receiving"]);
      assertEquals(lines[0]!["region"], lines[1]!["region"]);
      const refused = await migrate("recover", to, "--source-is-dead");
      assertEquals([refused.code, refused.lines], [1, []]);
      for (const part of ["EBUSY", `process ${leecher.pid}`]) {
        assertStringIncludes(refused.err, part);
      }
    }
    assertEquals((await migrate("recover", to)).code, 1);
    const { code, lines: [line], err } = await migrate("recover", to, "--source-is-dead");
    assertEquals([code, line?.["writable"]], [0, true], err);
    assert((line!["absent"] as { bytes: number }).bytes <= SIZE);
    await using copy = openLocal(to)!;
    const found = new Uint8Array(SIZE);
    await copy.readAt(found, 0);
    assertEquals(found, bytes);
  }));
