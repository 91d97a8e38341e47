/**
 * `telemap seed` and `telemap leech`: a file system with a database in use moves from one process to
 * another, and either side may be killed on the way.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { boundFile } from "../../lib/device/loop.ts";
import { pattern } from "../backend_model.ts";
import { requires } from "../requires.ts";
import { nextOf, telemap, TelemapProcess } from "../telemap_process.ts";
import { shell, until } from "./command.ts";
import { DATABASE_NEEDS, MovingDatabase } from "./moving_database.ts";
import { testInDirectory } from "./test_in_directory.ts";

openLibc();

const needs = requires("root", "/dev/fuse", "/dev/loop-control", ...DATABASE_NEEDS);

const test = testInDirectory(needs);

function seed(backend: string, ...more: string[]): TelemapProcess {
  const options = ["--listen", "telemap://127.0.0.1:0", "--json", ...more];
  return new TelemapProcess(["seed", backend, ...options]);
}

function leech(url: unknown, cache: string, ...more: string[]): TelemapProcess {
  return new TelemapProcess(["leech", `${url}`, "--cache", cache, "--json", ...more]);
}

test("a database in use on ext4 moves between processes twice, and no commit is lost", async (directory) => {
  const [a, b, c] = ["a", "b", "c"].map((name) => `file:${directory}/${name}`);
  const database = new MovingDatabase("loop");
  console.log(await database.move(`${a}?size=64MiB`, b!, "wait"));
  console.log(await database.move(b!, c!, "force"));
});

function readOr(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}

/** Kills a leecher, when the source is to commit as told, while the program is being suspended. */
async function killWhileSuspended(directory: string, confirm: string): Promise<void> {
  const gate = `${directory}/gate`;
  await Deno.writeTextFile(gate, "");
  const resumed = `${directory}/resumed`, asked = `${directory}/asked`;
  await using seeder = seed(
    ...[`file:${directory}/region?size=8MiB`, "--device", "fuse"] as const,
    ...[
      "--suspend",
      `echo >> ${asked}; while [ -e ${gate} ]; do sleep 0.01; done`,
      "--resume",
      `echo > ${resumed}`,
    ],
  );
  const ready = await seeder.next();
  {
    await using leecher = leech(
      ready["url"],
      `file:${directory}/copy`,
      "--device",
      "fuse",
      ...["--max-suspend", "2s", "--confirm", confirm],
    );
    await until(() => readOr(asked) !== "", "the suspension");
    leecher.kill("SIGKILL");
  }
  await Deno.remove(gate);
  await until(() => readOr(resumed) !== "", "the resumption");
  await shell(`printf 'still here' | dd of=${ready["path"]} conv=notrunc status=none`);
  await using leecher = leech(ready["url"], `file:${directory}/copy2`, "--device", "fuse");
  const { path } = await nextOf(leecher, "ready");
  assertStringIncludes(await Deno.readTextFile(`${path}`), "still here");
}

test("a leecher that is killed while the program is suspended costs no more than that", (directory) => {
  return killWhileSuspended(directory, "after");
});

test("nor does one that has confirmed ahead", (directory) => {
  return killWhileSuspended(directory, "ahead");
});

test("a forced takeover does not wait until all is copied, and the rest follows", async (directory) => {
  const size = 8 << 20, content = pattern(size, 5);
  await Deno.writeFile(`${directory}/region`, content);
  await using seeder = seed(`delay:file:${directory}/region#rate=4MB/s`, "--device", "fuse");
  const { url } = await seeder.next();
  await using leecher = leech(
    ...[url, `file:${directory}/copy`, "--device", "fuse"] as const,
    ...["--strategy", "force", "--max-time", "0"],
  );
  // Neither was all copied, nor was there a round.
  const ready = await nextOf(leecher, "ready");
  assertEquals(ready["rounds"], 0);
  assert(Number(ready["localBytes"]) < size / 2, `${ready["localBytes"]} bytes are here`);
  // At the end, which is missing for longest, and the program may write at once.
  await shell(`printf 'written here' | dd of=${ready["path"]} conv=notrunc status=none`);
  const found = await Deno.readFile(`${ready["path"]}`);
  content.set(new TextEncoder().encode("written here"));
  assertEquals(found.length === size && found.every((byte, at) => byte === content[at]), true);
  await nextOf(leecher, "complete");
  assertEquals((await seeder.end()).code, 0);
});

test("a suspension that takes too long is ended before the program goes on", async (directory) => {
  const [log, pids] = [`${directory}/log`, `${directory}/pids`];
  // What nobody has waited for yet has no command line any more.
  const alive = `cd /proc; for pid in $(cat ${pids}); do cat $pid/cmdline >> ${log}; done`;
  await using seeder = seed(
    ...[`file:${directory}/region?size=1MiB`, "--device", "fuse"] as const,
    ...["--suspend", `sleep 60 & echo $$ $! > ${pids}; wait; echo suspended >> ${log}`],
    ...["--resume", `${alive} 2>&-; echo resumed >> ${log}`],
  );
  const { url } = await seeder.next();
  const late = ["--device", "fuse", "--max-suspend", "300ms"];
  for (const copy of ["first", "second"]) {
    await using leecher = leech(url, `file:${directory}/${copy}`, ...late);
    const { code, err } = await leecher.end();
    assertEquals([code, err.includes("Cannot suspend the program")], [1, true], err);
  }
  // Also where the seeder ends meanwhile.
  await until(() => readOr(log) === "resumed\nresumed\n", "both resumptions");
  await using leecher = leech(url, `file:${directory}/third`, "--device", "fuse");
  await nextOf(seeder, "stage");
  await Deno.remove(pids);
  await until(() => readOr(pids).endsWith("\n"), "the third suspension");
  seeder.kill("SIGINT");
  assertEquals((await seeder.end()).code, 0);
  const left = readOr(pids).trim().split(" ").filter((pid) =>
    readOr(`/proc/${pid}/cmdline`) !== ""
  );
  assertEquals([left, readOr(log)], [[], "resumed\nresumed\n"]);
  leecher.kill("SIGKILL");
});

test("two block devices move together, and a file system on one of them", async (directory) => {
  const there = `${directory}/there`;
  await Deno.mkdir(there);
  const [first, second] = [`file:${directory}/a?size=16MiB`, `file:${directory}/b?size=1MiB`];
  await using seeder = new TelemapProcess([
    ...["seed", "--group", `root=${first}`, "--group", `log=${second}`, "--device", "loop"],
    ...["--listen", "telemap://127.0.0.1:0", "--json", "--suspend", `umount ${there}`],
  ]);
  const ready = await seeder.next();
  const [root, log] = ready["parts"] as Record<string, unknown>[];
  assertEquals([root?.["name"], log?.["name"], log?.["size"]], ["root", "log", 1 << 20]);
  await shell(`mkfs.ext4 -q ${root?.["path"]} && mount ${root?.["path"]} ${there}`);
  await shell(`echo rooted > ${there}/file; printf logged | dd of=${log?.["path"]} status=none`);
  await using leecher = leech(
    ...[ready["url"], `file:${directory}/copy`, "--device", "loop", "--group"] as const,
  );
  const here = await nextOf(leecher, "ready");
  const moved = here["parts"] as Record<string, unknown>[];
  assertEquals(moved.map(({ name }) => name), ["root", "log"]);
  await shell(`mount ${moved[0]?.["path"]} ${there}`);
  assertEquals(await Deno.readTextFile(`${there}/file`), "rooted\n");
  assertEquals(await shell(`head -c 6 ${moved[1]?.["path"]}`), "logged");
  await nextOf(leecher, "complete");
  assertEquals((await seeder.end()).code, 0);
  for (const name of ["a", "b"]) {
    const { out } = await telemap(["migrate", "status", `file:${directory}/${name}`]);
    assertMatch(out, /State +released.*\n.*\n +Group +[0-9a-f]{32}\n/);
  }
  // It stays as long as one of its devices is in use.
  leecher.kill("SIGINT");
  await until(() => boundFile(`${moved[1]?.["path"]}`) === undefined, "the end of the other one");
  await shell(`umount ${there}`);
  const { code, err } = await leecher.end();
  assertEquals(code, 0, err);
  assertStringIncludes(err, "is in use");
});

test("what cannot be seeded or leeched is one line", async (directory) => {
  for (
    const [code, args, why] of [
      [1, ["leech", "telemap://127.0.0.1:1", "--cache", "memory:"], "127.0.0.1:1"],
      [2, ["seed", "memory:1MiB", "--listen", "telemap://0.0.0.0:0"], "--token-file"],
      [2, ["leech", "telemap://127.0.0.1:1"], "--cache"],
      [2, ["seed", "--listen", "telemap://127.0.0.1:0"], "BACKEND or --group"],
      [2, ["seed", "memory:1MiB", "--group", "a=memory:1MiB"], "beside a group"],
      [2, ["seed", "--group", "memory:1MiB"], "NAME=BACKEND"],
      [2, ["seed", "--group", "a=memory:1MiB", "--at", directory], "--at"],
      [2, ["leech", "telemap://[::1]:1", "--cache", "memory:", "--group", "--at", "x"], "--at"],
      [2, ["seed", "memory:1MiB", "--listen", "nbd://127.0.0.1:0"], "telemap://HOST:PORT"],
      [2, ["seed", "memory:1MiB", "--listen", "telemap://127.0.0.1:0", "--chunk", "5000"], "4 KiB"],
      [2, ["seed", "memory:1MiB", "--dial", "telemap://[::1]:1", "--chunk", "64MiB"], "32 MiB"],
      [1, ["seed", `file:${directory}/missing`, "--listen", "telemap://127.0.0.1:0"], "missing"],
    ] as const
  ) {
    const outcome = await telemap([...args]);
    assertEquals(outcome.code, code, outcome.err);
    assertStringIncludes(outcome.err, why);
    assertEquals(outcome.err.split("\n").length, 1);
  }
});
