/**
 * A group after the process that brought it here has gone: each part is mounted by itself, all of them
 * are seeded in turn, and none is written any more once they have moved on.
 */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { requires, withReason } from "../requires.ts";
import { type Event, nextOf, telemap, TelemapProcess } from "../telemap_process.ts";
import { shell, temporaryDirectory } from "./command.ts";

const needs = requires("root", "/dev/fuse");
const FUSE = ["--device", "fuse", "--json"] as const;
const LISTEN = ["--listen", "telemap://127.0.0.1:0"] as const;

function mount(url: string): TelemapProcess {
  return new TelemapProcess(["mount", url, ...FUSE]);
}

async function write(path: unknown, text: string): Promise<void> {
  await shell(`printf '${text}' | dd of='${path}' conv=notrunc status=none`);
}

async function read(path: unknown): Promise<string> {
  return (await Deno.readTextFile(`${path}`)).replaceAll("\0", "");
}

/** Where the parts of a group appear, by their names. */
function pathsOf({ parts }: Event): Record<string, string> {
  return Object.fromEntries(
    (parts as { name: string; path: string }[]).map(({ name, path }) => [name, path]),
  );
}

async function stop(...processes: TelemapProcess[]): Promise<void> {
  for (const process of processes) {
    process.kill("SIGINT");
    const { code, err } = await process.end();
    assertEquals([code, err], [0, ""]);
  }
}

Deno.test({
  name: withReason(
    "the parts of a moved group are mounted one by one, and move on together",
    needs,
  ),
  ignore: needs.ignore,
  async fn() {
    using directory = temporaryDirectory();
    const there = (name: string) => `file:${directory.path}/${name}`;
    const copy = there("copy");
    {
      const parts = ["root", "log"].map((name) => `${name}=${there(name)}?size=1MiB`);
      await using seeder = new TelemapProcess([
        ...["seed", "--group", parts[0]!, "--group", parts[1]!],
        ...[...LISTEN, ...FUSE],
      ]);
      const ready = await seeder.next();
      await write(pathsOf(ready)["log"], "logged");
      await using leecher = new TelemapProcess([
        ...["leech", `${ready["url"]}`, "--group", "--cache", copy, ...FUSE],
      ]);
      await nextOf(leecher, "complete");
      leecher.kill("SIGKILL");
    }
    {
      await using root = mount(`part:${copy}#root`);
      await using log = mount(`part:${copy}#log`);
      const [rootReady, logReady] = [await root.next(), await log.next()];
      assertEquals([rootReady["size"], logReady["size"]], [1 << 20, 1 << 20]);
      assertEquals(await read(logReady["path"]), "logged");
      await write(rootReady["path"], "rooted");
      await stop(root, log);
    }
    const missing = await telemap(["mount", `part:${copy}#nothing`]);
    assertEquals(missing.code, 2);
    assertStringIncludes(missing.err, "the group has root, log");

    await using again = new TelemapProcess([
      ...["seed", copy, "--group", "root", "--group", "log", ...LISTEN, ...FUSE],
    ]);
    const ready = await again.next();
    const { root, log } = pathsOf(ready);
    assertEquals([await read(root), await read(log)], ["rooted", "logged"]);
    await using last = new TelemapProcess([
      ...["leech", `${ready["url"]}`, "--group", "--cache", there("last"), ...FUSE],
    ]);
    await nextOf(last, "complete");
    assertEquals((await again.end()).code, 0);
    const fenced = await telemap(["mount", `part:${copy}#root`]);
    assertEquals(fenced.code, 1);
    assertStringIncludes(fenced.err, "was given away");
    await stop(last);
  },
});
