/**
 * `telemap leech --follow` and `telemap migrate promote`: a standby keeps up with its source, and takes
 * over from one that lives, which is fenced, or from one that is dead.
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { statSync } from "node:fs";
import { requires, withReason } from "../requires.ts";
import { type Event, telemap, TelemapProcess } from "../telemap_process.ts";
import { temporaryDirectory, until } from "./command.ts";

const needs = requires("root", "/dev/fuse");
const MIB = 1 << 20;

/** A source, its standby, and what the source appears as. */
interface Pair {
  seeder: TelemapProcess;
  standby: TelemapProcess;
  copy: string;
  path: string;
}

function test(name: string, fn: (pair: Pair) => Promise<void>): void {
  Deno.test({
    name: withReason(name, needs),
    ignore: needs.ignore,
    async fn() {
      using directory = temporaryDirectory();
      const region = `file:${directory.path}/region?size=${16 * MIB}`;
      const copy = `file:${directory.path}/copy`;
      const listen = ["--listen", "telemap://127.0.0.1:0", "--json"];
      await using seeder = new TelemapProcess(["seed", region, "--device", "fuse", ...listen]);
      const { url, path } = await seeder.next();
      const follow = ["--cache", copy, "--device", "fuse", "--follow", "50ms", "--json"];
      await using standby = new TelemapProcess(["leech", `${url}`, ...follow]);
      await fn({ seeder, standby, copy, path: `${path}` });
    },
  });
}

/** The next event that is one, and like this. */
async function nextOf(
  process: TelemapProcess,
  name: string,
  isIt: (event: Event) => boolean = () => true,
): Promise<Event> {
  for (;;) {
    const event = await process.next();
    if (event["event"] === name && isIt(event)) return event;
  }
}

/** Writes where the source is mounted, and waits until the standby has it. */
async function writeAndWait({ path, standby }: Pair, text: string): Promise<void> {
  await write(path, text);
  const { rounds } = await nextOf(standby, "lag");
  // A round that began after the write is over, and another one.
  await nextOf(standby, "lag", (event) => Number(event["rounds"]) >= Number(rounds) + 3);
}

async function write(path: string, text: string): Promise<void> {
  using file = await Deno.open(path, { write: true });
  await file.seek(5 * MIB, Deno.SeekMode.Start);
  await file.write(new TextEncoder().encode(text));
  await file.sync();
}

async function read(path: unknown, length: number): Promise<string> {
  using file = await Deno.open(`${path}`);
  await file.seek(5 * MIB, Deno.SeekMode.Start);
  const bytes = new Uint8Array(length);
  await file.read(bytes);
  return new TextDecoder().decode(bytes);
}

test("a standby takes over from a source that lives, which is fenced", async (pair) => {
  const { seeder, standby, copy, path } = pair;
  await writeAndWait(pair, "early");
  const lag = await nextOf(standby, "lag", (event) => event["lagBytes"] === 0);
  assert(Number(lag["lagMs"]) < 5000, `${lag["lagMs"]} ms behind`);
  await write(path, "later");
  const held = await Deno.open(path, { write: true });
  const promoted = await telemap(["migrate", "promote", copy, "--json"]);
  assertEquals(promoted.code, 0, promoted.err);
  assertStringIncludes(promoted.out, '"epoch":1');
  const ready = await nextOf(standby, "ready");
  assertEquals([await read(ready["path"], 5), ready["missing"]], ["later", undefined]);
  await write(`${ready["path"]}`, "there");
  // It is refused, or the source has gone already.
  await assertRejects(() => held.write(new TextEncoder().encode("nowhere")), Error);
  held.close();
  assertEquals(await read(ready["path"], 5), "there");
  await nextOf(standby, "complete");
  assertEquals((await seeder.end()).code, 0);
  standby.kill("SIGINT");
  assertEquals((await standby.end()).code, 0);
});

test("a region that was taken over stays here where its source does not prove to be equal", async (pair) => {
  const { seeder, standby, copy } = pair;
  await nextOf(standby, "lag");
  // Nobody notices what is written beside the device.
  await write(new URL("region", copy.replace("file:", "file://")).pathname, "aside");
  assertEquals((await telemap(["migrate", "promote", copy])).code, 0);
  const { path } = await nextOf(standby, "ready");
  const { message } = await nextOf(standby, "unsettled");
  assertStringIncludes(`${message}`, "differs in 1 chunk(s)");
  await write(`${path}`, "there");
  assertEquals(await read(path, 5), "there");
  standby.kill("SIGINT");
  const { code, err } = await standby.end();
  assertEquals([code, err.includes("the region stays here")], [0, true], err);
  seeder.kill("SIGINT");
  assertEquals((await seeder.end()).code, 0);
});

test("a standby whose source is dead becomes the region by the user's word alone", async (pair) => {
  const { seeder, standby, copy } = pair;
  await writeAndWait(pair, "there");
  seeder.kill("SIGKILL");
  const promoted = await telemap(["migrate", "promote", copy, "--source-is-dead", "--json"]);
  assertEquals(promoted.code, 0, promoted.err);
  assertStringIncludes(promoted.out, '"promoted":true');
  const { path, missing, promoted: told } = await nextOf(standby, "ready");
  assertEquals([await read(path, 5), told], ["there", true]);
  const { bytes, milliseconds } = missing as { bytes: number; milliseconds: number };
  assertEquals(bytes, 0);
  assert(milliseconds > 0 && milliseconds < 30_000, `${milliseconds} ms`);
  await write(`${path}`, "again");
  await nextOf(standby, "complete");
  standby.kill("SIGINT");
  assertEquals((await standby.end()).code, 0);
  const { out } = await telemap(["migrate", "status", copy, "--json"]);
  assertStringIncludes(out, '"verdict":"owned"');
});

/** A standby that copies for as long as a test may take, and its source. */
async function withSlowPair(fn: (pair: Pair) => Promise<void>): Promise<void> {
  using directory = temporaryDirectory();
  const copy = `file:${directory.path}/copy`;
  await Deno.writeFile(`${directory.path}/region`, new Uint8Array(16 * MIB).fill(1));
  await using seeder = new TelemapProcess([
    ...["seed", `delay:file:${directory.path}/region#rate=1MB/s`, "--device", "fuse"],
    ...["--listen", "telemap://127.0.0.1:0", "--json"],
  ]);
  const { url, path } = await seeder.next();
  await using standby = new TelemapProcess([
    ...["leech", `${url}`, "--cache", copy, "--device", "fuse", "--json"],
    ...["--follow", "50ms", "--strategy", "force", "--max-time", "0"],
  ]);
  const blocks = () => statSync(`${directory.path}/copy`, { throwIfNoEntry: false })?.blocks ?? 0;
  await until(() => blocks() > 0, "the first bytes of the copy");
  await fn({ seeder, standby, copy, path: `${path}` });
}

Deno.test({
  name: withReason("a standby that has not copied all yet takes over when it is promoted", needs),
  ignore: needs.ignore,
  fn: () =>
    withSlowPair(async ({ standby, copy }) => {
      const isUnderWay = ({ localBytes }: Event) => Number(localBytes) > 0;
      const progress = await nextOf(standby, "progress", isUnderWay);
      assertEquals(progress["state"], "copying");
      const promoted = await telemap(["migrate", "promote", copy, "--json"]);
      assertEquals(promoted.code, 0, promoted.err);
      assertStringIncludes(promoted.out, '"state":"taken"');
      const ready = await nextOf(standby, "ready");
      assert(Number(ready["localBytes"]) < 8 * MIB, `${ready["localBytes"]} bytes are here`);
    }),
});

Deno.test({
  name: withReason("a standby whose source dies before all is copied tells what is missing", needs),
  ignore: needs.ignore,
  fn: () =>
    withSlowPair(async ({ seeder, standby, copy }) => {
      seeder.kill("SIGKILL");
      const promoted = await telemap(["migrate", "promote", copy, "--source-is-dead", "--json"]);
      assertEquals(promoted.code, 0, promoted.err);
      const { missing } = await nextOf(standby, "ready");
      assert((missing as { bytes: number }).bytes > 8 * MIB, JSON.stringify(missing));
      standby.kill("SIGINT");
      assertEquals((await standby.end()).code, 0);
    }),
});

test("a standby that asks its source in vain can be told that it is dead", async (pair) => {
  const { seeder, standby, copy } = pair;
  await writeAndWait(pair, "there");
  seeder.kill("SIGSTOP");
  // As telemap migrate promote does, which would wait.
  standby.kill("SIGUSR2");
  const promoted = await telemap(["migrate", "promote", copy, "--source-is-dead", "--json"]);
  assertEquals(promoted.code, 0, promoted.err);
  assertStringIncludes(promoted.out, '"promoted":true');
  const { path } = await nextOf(standby, "ready");
  assertEquals(await read(path, 5), "there");
});

test("who is no standby is not promoted, and goes on", async ({ seeder, standby, copy }) => {
  await nextOf(standby, "lag");
  const region = copy.replace(/copy$/, "region");
  const source = await telemap(["migrate", "promote", region]);
  assertEquals([source.code, source.err.split("\n").length], [1, 1]);
  assertStringIncludes(source.err, `process ${seeder.pid}: it is no standby`);
  standby.kill("SIGINT");
  assertEquals((await standby.end()).code, 0);
  const nobody = await telemap(["migrate", "promote", copy]);
  assertEquals(nobody.code, 1);
  assertStringIncludes(nobody.err, "no process keeps it as a standby");
  seeder.kill("SIGINT");
  assertEquals((await seeder.end()).code, 0);
});
