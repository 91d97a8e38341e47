/**
 * `telemap seed` and `telemap leech`: a file system with a database in use moves from one process to
 * another, and either side may be killed on the way.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { requires, withReason } from "../requires.ts";
import { type Event, telemap, TelemapProcess } from "../telemap_process.ts";
import { shell, temporaryDirectory, until } from "./command.ts";

const needs = requires("root", "/dev/fuse", "/dev/loop-control", "mkfs.ext4", "sqlite3");

function test(name: string, fn: (directory: string) => Promise<void>): void {
  Deno.test({
    name: withReason(name, needs),
    ignore: needs.ignore,
    async fn() {
      using directory = temporaryDirectory();
      await fn(directory.path);
    },
  });
}

/** The next event of that name. */
async function nextOf(process: TelemapProcess, name: string): Promise<Event> {
  for (;;) {
    const event = await process.next();
    if (event["event"] === name) return event;
  }
}

function seed(backend: string, ...more: string[]): TelemapProcess {
  const options = ["--listen", "telemap://127.0.0.1:0", "--json", ...more];
  return new TelemapProcess(["seed", backend, ...options]);
}

function leech(url: unknown, cache: string, ...more: string[]): TelemapProcess {
  return new TelemapProcess(["leech", `${url}`, "--cache", cache, "--json", ...more]);
}

/** Inserts rows for ever, and writes the number of the last one that was committed into a file. */
const WRITER = `
i=0
while i=$((i + 1)); do
  sqlite3 "$1/db" "INSERT INTO t VALUES ($i, hex(randomblob(500)));" || exit 0
  echo $i > "$2"
done
`;

test("a database in use on ext4 moves between processes, and no commit is lost", async (directory) => {
  const source = `${directory}/source`, target = `${directory}/target`;
  await Deno.mkdir(source);
  await Deno.mkdir(target);
  const last = `${directory}/last`, pid = `${directory}/pid`;
  // The last command of the writer may still be running.
  const suspend = `kill $(cat ${pid}); until umount ${source} 2>/dev/null; do sleep 0.01; done`;
  await using seeder = seed(
    `file:${directory}/region?size=64MiB`,
    ...["--device", "loop", "--suspend", suspend],
  );
  const ready = await seeder.next();
  await shell(`mkfs.ext4 -q ${ready["path"]} && mount ${ready["path"]} ${source}`);
  await shell(`sqlite3 ${source}/db 'CREATE TABLE t (i INTEGER PRIMARY KEY, x TEXT);'`);
  const writer = new Deno.Command("sh", { args: ["-c", WRITER, "sh", source, last] }).spawn();
  await Deno.writeTextFile(pid, `${writer.pid}`);
  const written = writer.status;
  await until(() => Number(readOr(last)) > 20, "some commits");
  const cache = `file:${directory}/copy`;
  await using leecher = leech(ready["url"], cache, "--device", "loop", "--strategy", "force");
  const here = await nextOf(leecher, "ready");
  await written;
  await shell(`mount ${here["path"]} ${target}`);
  const committed = Number(await Deno.readTextFile(last));
  const count = Number(await shell(`sqlite3 ${target}/db 'SELECT count(*) FROM t;'`));
  // The last commit may not have been told of any more.
  assert(count === committed || count === committed + 1, `${count} rows of ${committed}`);
  assertEquals((await shell(`sqlite3 ${target}/db 'PRAGMA integrity_check;'`)).trim(), "ok");
  console.log(`${committed} commits; downtime ${Number(here["downtimeMs"]).toFixed(1)} ms`);
  await nextOf(leecher, "complete");
  assertEquals((await seeder.end()).code, 0);
  await shell(`umount ${target}`);
  leecher.kill("SIGINT");
  assertEquals((await leecher.end()).code, 0);
});

function readOr(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}

test("a leecher that is killed while the program is suspended costs no more than that", async (directory) => {
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
      "--max-suspend",
      "2s",
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
});

test("what cannot be seeded or leeched is one line", async (directory) => {
  for (
    const [code, args, why] of [
      [1, ["leech", "telemap://127.0.0.1:1", "--cache", "memory:"], "127.0.0.1:1"],
      [2, ["seed", "memory:1MiB", "--listen", "telemap://0.0.0.0:0"], "--token-file"],
      [2, ["leech", "telemap://127.0.0.1:1"], "--cache"],
      [1, ["seed", `file:${directory}/missing`, "--listen", "telemap://127.0.0.1:0"], "missing"],
    ] as const
  ) {
    const outcome = await telemap([...args]);
    assertEquals(outcome.code, code, outcome.err);
    assertStringIncludes(outcome.err, why);
    assertEquals(outcome.err.split("\n").length, 1);
  }
});
