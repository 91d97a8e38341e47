/**
 * `telemap seed --dial` and `telemap leech --accept`: a region moves although its seeder cannot be
 * reached, with a token and as a warm standby, too.
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { freePort } from "../free_port.ts";
import { requires } from "../requires.ts";
import { type Event, nextOf, telemap, TelemapProcess } from "../telemap_process.ts";
import { shell } from "./command.ts";
import { testInDirectory } from "./test_in_directory.ts";

const needs = requires("root", "/dev/fuse");
const DEVICE = ["--device", "fuse", "--json"] as const;

const test = testInDirectory(needs);

function seed(directory: string, url: string, ...more: string[]): TelemapProcess {
  const region = `file:${directory}/region?size=16MiB`;
  return new TelemapProcess(["seed", region, "--dial", url, ...DEVICE, ...more]);
}

function leech(directory: string, url: string, ...more: string[]): TelemapProcess {
  const cache = `file:${directory}/copy`;
  return new TelemapProcess(["leech", url, "--accept", "--cache", cache, ...DEVICE, ...more]);
}

async function write(path: unknown, text: string): Promise<void> {
  await shell(`printf '${text}' | dd of=${path} conv=notrunc,fsync status=none`);
}

async function read(path: unknown, length: number): Promise<string> {
  return await shell(`head -c ${length} ${path}`);
}

/** The stages that a seeder went through. */
function stagesOf(events: Event[]): unknown[] {
  return events.map(({ event, stage }) => stage ?? event);
}

test("a seeder that dials before anybody listens gives its region away", async (directory) => {
  const url = `telemap://127.0.0.1:${freePort()}`;
  await using seeder = seed(directory, url);
  const begun = await seeder.next();
  assertEquals([begun["event"], begun["url"]], ["ready", url]);
  await write(begun["path"], "dialled");
  await using leecher = leech(directory, url);
  const copied = await nextOf(leecher, "progress");
  assertEquals([copied["localBytes"], copied["epoch"]], [16 << 20, 0]);
  const ready = await nextOf(leecher, "ready");
  assertEquals([await read(ready["path"], 7), ready["epoch"]], ["dialled", 1]);
  await nextOf(leecher, "complete");
  const { code, events } = await seeder.end();
  assertEquals(code, 0);
  assertEquals(stagesOf(events), ["suspending", "offered", "given", "released", "closed"]);
  leecher.kill("SIGINT");
  assertEquals((await leecher.end()).code, 0);
});

test("only a seeder with the token of its leecher gets through to it", async (directory) => {
  const url = `telemap+unix:///?socket=${directory}/socket`;
  const [right, wrong] = [`${directory}/right`, `${directory}/wrong`];
  await Deno.writeTextFile(right, "sesame\n");
  await Deno.writeTextFile(wrong, "sesam\n");
  await using leecher = leech(directory, url, "--token-file", right);
  {
    await using stranger = seed(directory, url, "--token-file", wrong);
    await stranger.next();
    await stranger.said("The token is wrong");
    stranger.kill("SIGINT");
    const { code, events } = await stranger.end();
    assertEquals([code, stagesOf(events)], [0, ["closed"]]);
  }
  await using seeder = seed(directory, url, "--token-file", right);
  await write((await seeder.next())["path"], "opened");
  const ready = await nextOf(leecher, "ready");
  assertEquals(await read(ready["path"], 6), "opened");
  await nextOf(leecher, "complete");
  assertEquals((await seeder.end()).code, 0);
});

test("a standby takes over from a source that dials, which is fenced", async (directory) => {
  const url = `telemap+unix:///?socket=${directory}/socket`, copy = `file:${directory}/copy`;
  await using standby = leech(directory, url, "--follow", "100ms");
  await using seeder = seed(directory, url);
  const { path } = await seeder.next();
  await nextOf(standby, "lag");
  await write(path, "early");
  const { rounds } = await nextOf(standby, "lag");
  while (Number((await nextOf(standby, "lag"))["rounds"]) < Number(rounds) + 2);
  await write(path, "later");
  const held = await Deno.open(`${path}`, { write: true });
  const promoted = await telemap(["migrate", "promote", copy, "--json"]);
  assertEquals(promoted.code, 0, promoted.err);
  const { epoch, peer } = JSON.parse(promoted.out);
  assertEquals([epoch, peer], [1, url]);
  const ready = await nextOf(standby, "ready");
  assertEquals([await read(ready["path"], 5), ready["missing"]], ["later", undefined]);
  // It is refused, or the source has gone already.
  await assertRejects(() => held.write(new TextEncoder().encode("fence")), Error);
  held.close();
  assertEquals(await read(ready["path"], 5), "later");
  await nextOf(standby, "complete");
  const { code, events } = await seeder.end();
  assertEquals([code, stagesOf(events).includes("released")], [0, true]);
  const status = await telemap(["migrate", "status", `file:${directory}/region`, "--json"]);
  const { state, writable } = JSON.parse(status.out);
  assertEquals([state, writable], ["released", false]);
  standby.kill("SIGINT");
  assertEquals((await standby.end()).code, 0);
});

test("a leecher whom nobody dials ends when it is asked to", async (directory) => {
  const url = `telemap+unix:///?socket=${directory}/socket`;
  await using leecher = leech(directory, url);
  assertStringIncludes(await leecher.said("Waiting for a server"), url);
  leecher.kill("SIGINT");
  const { code, events } = await leecher.end();
  assertEquals([code, stagesOf(events)], [0, ["closed"]]);
  assert(!Array.from(Deno.readDirSync(directory)).some(({ name }) => name.startsWith("copy")));
});
